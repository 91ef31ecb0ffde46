"""Two evaluations of the same prompts and seeds, metric by metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmrl.config import UserError
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.paired import Wins, count_wins, holm, mcnemar_p_value, sign_flip_p_value
from mmrl.evaluate.pairing import pair_rows
from mmrl.evaluate.result import Result
from mmrl.evaluate.row import Row


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
    def verdict(self) -> str:
        """`rose` or `fell` where the interval leaves out 0 and p is at most 1 - level."""
        if not math.isfinite(self.low):
            return "one prompt: no interval"
        if self.p_value > 1 - self.level + 1e-12 or self.low <= 0 <= self.high:
            return "no clear change"
        return "rose" if self.low > 0 else "fell"


def compare(before: Result, after: Result, *, tie: float = 0.0) -> list[Comparison]:
    """Paired differences after - before, with intervals over prompts.

    UserError unless both hold the same samples (`pair_rows`) and have a metric in common. One
    without a score in both for any sample is left out.
    """
    pairs = pair_rows(before.rows, after.rows)
    shared = [name for name in before.names() if name in after.names()]
    names = [name for name in shared if any(math.isfinite(_gap(name, *pair)) for pair in pairs)]
    if not names:
        raise UserError(
            f"no metric with a score in both: {', '.join(before.names())} and "
            f"{', '.join(after.names())}"
        )
    found = [_compare(name, pairs, before.level, tie) for name in names]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, p_value=p) for one, p in zip(found, adjusted, strict=True)]


def _gap(name: str, before: Row, after: Row) -> float:
    """NaN where one of the two has no score."""
    return after.score(name) - before.score(name)


def _compare(name: str, pairs: Sequence[tuple[Row, Row]], level: float, tie: float) -> Comparison:
    known = [pair for pair in pairs if math.isfinite(_gap(name, *pair))]
    old, new = [x.score(name) for x, _ in known], [y.score(name) for _, y in known]
    groups = [x.group for x, _ in known]
    gaps = [y - x for x, y in zip(old, new, strict=True)]
    mean, low, high = bootstrap_ci(gaps, groups, level=level)
    binary = not {*old, *new} - {0.0, 1.0} and max(Counter(groups).values()) == 1
    if binary:
        p_value = mcnemar_p_value([x == 1 for x in old], [y == 1 for y in new])
    else:
        p_value = sign_flip_p_value(gaps, groups)
    return Comparison(
        name,
        len(known),
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
