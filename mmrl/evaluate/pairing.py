"""Which sample of one evaluation belongs to which of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmrl.config import UserError
from mmrl.evaluate.row import Row, prompt_set

Key = tuple[str, str, str, int | None]
"""Text, pictures and answer of a prompt, and the seed."""


def pair_rows(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same prompt (text, pictures by content, answer) and seed, in pairs.

    Several rows of one prompt and no seed are told apart by the name of their file; answers, which
    have none, by their place. UserError where the two sets differ or the names do not match.
    """
    old, new = _by_key(before), _by_key(after)
    if {key: len(rows) for key, rows in old.items()} != {k: len(r) for k, r in new.items()}:
        raise UserError(_difference(before, after, old, new))
    return [pair for key in old for pair in _pairs_of(key, old[key], new[key])]


def _by_key(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((*row.asked, row.seed), []).append(row)
    return found


def _difference(
    before: Sequence[Row],
    after: Sequence[Row],
    old: dict[Key, list[Row]],
    new: dict[Key, list[Row]],
) -> str:
    lost, extra = _beyond(old, new), _beyond(new, old)
    one, other = (prompt_set(rows)[:12] for rows in (before, after))
    if one == other:
        what = "the same prompts, but not the same seeds or samples of each"
    else:
        what = f"not the same prompts (text, pictures and answers: sets {one} and {other})"
    example = next((f", such as {key[0]!r:.80}" for key in [*lost, *extra]), "")
    return (
        f"{what}: {sum(lost.values())} samples stand only in the first evaluation, "
        f"{sum(extra.values())} only in the second{example}; evaluate both with the same prompts, "
        "count and seed"
    )


def _beyond(rows: dict[Key, list[Row]], other: dict[Key, list[Row]]) -> dict[Key, int]:
    """How many rows of a key the other evaluation lacks."""
    gaps = {key: len(found) - len(other.get(key, ())) for key, found in rows.items()}
    return {key: gap for key, gap in gaps.items() if gap > 0}


def _pairs_of(key: Key, old: Sequence[Row], new: Sequence[Row]) -> list[tuple[Row, Row]]:
    if len(old) == 1 or not any(row.media for row in (*old, *new)):
        return list(zip(old, new, strict=True))
    left, right = ([Path(row.media or "").name for row in rows] for rows in (old, new))
    if len({*left, *right}) == 1:  # the picture that all of them ask about
        return list(zip(old, new, strict=True))
    if sorted(left) != sorted(right) or len(set(left)) < len(left):
        raise UserError(
            f"{len(left)} files of the prompt {key[0]!r:.80} have no seed, and their names do not "
            "pair them: give each a name of its own, the same in both evaluations, or a seed"
        )
    named = dict(zip(right, new, strict=True))
    return [(row, named[name]) for name, row in zip(left, old, strict=True)]
