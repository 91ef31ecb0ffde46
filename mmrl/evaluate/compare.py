"""Two evaluations of the same prompts and seeds, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmrl.config import UserError
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.paired import Wins, count_wins, holm, sign_flip_p_value
from mmrl.evaluate.result import Result, Row

Key = tuple[str, int | None, int]


@dataclass(frozen=True)
class Comparison:
    """The second arm against the first on one metric."""

    name: str
    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    wins: Wins
    p_value: float
    """Of no difference, by sign flips of whole prompts, corrected over all metrics (Holm)."""

    @property
    def verdict(self) -> str:
        """`rose` or `fell` where the interval of the difference leaves out 0."""
        return "rose" if self.low > 0 else "fell" if self.high < 0 else "no clear change"


def compare(before: Result, after: Result, *, tie: float = 0.0) -> list[Comparison]:
    """Paired differences after - before, with intervals over prompts.

    UserError unless both hold the same samples: prompt, seed and place among its prompt's samples.
    """
    pairs = _paired(before.rows, after.rows)
    names = [name for name in before.names() if name in after.names()]
    if not names:
        raise UserError(
            f"no metric in common: {', '.join(before.names())} and {', '.join(after.names())}"
        )
    found = [_compare(name, pairs, before.level, tie) for name in names]
    adjusted = holm([one.p_value for one in found])
    return [
        Comparison(**{**vars(one), "p_value": p}) for one, p in zip(found, adjusted, strict=True)
    ]


def _compare(name: str, pairs: Sequence[tuple[Row, Row]], level: float, tie: float) -> Comparison:
    old = [row.score(name) for row, _ in pairs]
    new = [row.score(name) for _, row in pairs]
    groups = [row.group for row, _ in pairs]
    gaps = [y - x for x, y in zip(old, new, strict=True)]
    known = [index for index, gap in enumerate(gaps) if math.isfinite(gap)]
    if not known:
        raise UserError(f"{name}: no sample has a score in both evaluations")
    mean, low, high = bootstrap_ci(gaps, groups, level=level)
    return Comparison(
        name,
        len(known),
        math.fsum(old[i] for i in known) / len(known),
        math.fsum(new[i] for i in known) / len(known),
        mean,
        low,
        high,
        count_wins(old, new, tie=tie),
        sign_flip_p_value(gaps, groups),
    )


def _paired(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    old, new = _by_key(before), _by_key(after)
    if old.keys() != new.keys():
        lost, extra = len(old.keys() - new.keys()), len(new.keys() - old.keys())
        raise UserError(
            f"not the same prompts and seeds: {lost} samples stand only in the first evaluation, "
            f"{extra} only in the second; evaluate both with the same prompts, count and seed"
        )
    return [(old[key], new[key]) for key in old]


def _by_key(rows: Sequence[Row]) -> dict[Key, Row]:
    """Rows by prompt, seed, and a count among rows that are alike in both."""
    found: dict[Key, Row] = {}
    counts: dict[tuple[str, int | None], int] = {}
    for row in rows:
        place = (row.prompt, row.seed)
        counts[place] = counts.get(place, 0) + 1
        found[(*place, counts[place])] = row
    return found
