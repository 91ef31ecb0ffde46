"""Two evaluations of the same prompts and seeds, metric by metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmrl.config import UserError
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.paired import (
    Verdict,
    Wins,
    count_wins,
    holm,
    mcnemar_p_value,
    sign_flip_p_value,
    verdict,
)
from mmrl.evaluate.pairing import pair_rows
from mmrl.evaluate.result import Result


@dataclass(frozen=True)
class Pairs:
    """One metric of both arms, sample by sample; NaN: could not be scored."""

    before: Sequence[float]
    after: Sequence[float]
    groups: Sequence[int]
    """Which prompt a pair answers."""

    def known(self) -> Pairs:
        """Those with a score in both arms."""
        rows = zip(self.before, self.after, self.groups, strict=True)
        kept = [row for row in rows if math.isfinite(row[1] - row[0])]
        return Pairs(*map(list, zip(*kept, strict=True))) if kept else Pairs((), (), ())


@dataclass(frozen=True)
class Comparison:
    """The second arm against the first on one metric."""

    name: str
    n: int
    units: int
    """Prompts, or files by themselves, that were resampled."""
    before: float
    after: float
    difference: float
    low: float
    """NaN, as `high`, below two units: one says nothing of how they differ."""
    high: float
    wins: Wins
    p_value: float
    """Of no difference, corrected over all metrics (Holm)."""
    test: str
    """McNemar's, exact, for one right or wrong answer a prompt; else signs of prompts flipped."""
    level: float

    @property
    def verdict(self) -> Verdict:
        """Whether the second arm clearly rose or fell."""
        return verdict(self.low, self.high, self.p_value, level=self.level)


def compare(before: Result, after: Result, *, tie: float = 0.0) -> list[Comparison]:
    """Paired differences after - before, with intervals over prompts.

    UserError unless both hold the same samples (`pair_rows`) and have a metric in common. One
    without a score in both for any sample is left out.
    """
    pairs = pair_rows(before.rows, after.rows)
    groups = [row.group for row, _ in pairs]
    metrics = {
        name: Pairs([x.score(name) for x, _ in pairs], [y.score(name) for _, y in pairs], groups)
        for name in before.names()
        if name in after.names()
    }
    found = compare_metrics(metrics, level=before.level, tie=tie)
    if not found:
        raise UserError(
            f"no metric with a score in both: {', '.join(before.names())} and "
            f"{', '.join(after.names())}"
        )
    return found


def compare_metrics(
    metrics: Mapping[str, Pairs], *, level: float, tie: float = 0.0
) -> list[Comparison]:
    """Every metric that has a pair with both scores; p-values are corrected over all of them."""
    known = {name: pairs.known() for name, pairs in metrics.items()}
    found = [_compare(name, pairs, level, tie) for name, pairs in known.items() if pairs.groups]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, p_value=p) for one, p in zip(found, adjusted, strict=True)]


def _compare(name: str, pairs: Pairs, level: float, tie: float) -> Comparison:
    old, new, groups = pairs.before, pairs.after, pairs.groups
    gaps = [y - x for x, y in zip(old, new, strict=True)]
    mean, low, high = bootstrap_ci(gaps, groups, level=level)
    binary = not {*old, *new} - {0.0, 1.0} and max(Counter(groups).values()) == 1
    if binary:
        p_value = mcnemar_p_value([x == 1 for x in old], [y == 1 for y in new])
    else:
        p_value = sign_flip_p_value(gaps, groups)
    return Comparison(
        name,
        len(gaps),
        len(set(groups)),
        math.fsum(old) / len(old),
        math.fsum(new) / len(new),
        mean,
        low,
        high,
        count_wins(old, new, tie=tie),
        p_value,
        "McNemar" if binary else "sign flips",
        level,
    )
