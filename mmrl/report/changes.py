"""What an evaluation says: each metric before and after, the change, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrl.evaluate.compare import Comparison, Pairs, compare_metrics
from mmrl.evaluate.paired import Verdict
from mmrl.report.run import RunData

LEVEL = 0.95
"""Of intervals whose evaluation does not say."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval over held-out prompts, which one prompt alone has not."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.low) and math.isfinite(self.mean):
            return f"{number(self.mean)} (no interval)"
        return f"{number(self.mean)} [{number(self.low)}, {number(self.high)}]"


@dataclass(frozen=True)
class Change:
    """One metric of the held-out set."""

    name: str
    watched: bool
    n: int
    before: Estimate
    after: Estimate
    paired: Comparison | None
    """The same prompts and seeds, pair by pair; None without single values to pair."""

    @property
    def difference(self) -> Estimate | None:
        """After - before, with the interval that belongs to pairs."""
        one = self.paired
        return None if one is None else Estimate(one.difference, one.low, one.high)

    @property
    def verdict(self) -> Verdict:
        """That of `mmrl compare`. Without single values the two intervals must not touch."""
        if self.paired is not None:
            return self.paired.verdict
        if self.after.low > self.before.high:
            return "rose"
        return "fell" if self.after.high < self.before.low else "no clear change"


def changes(run: RunData) -> list[Change]:
    """Metrics measured both before and after: the trained sum, what is trained, what is watched."""
    before, after = run.evaluation.get("before", {}), run.evaluation.get("after", {})
    watched = set(run.evaluation.get("watched", ()))
    trained = run.evaluation.get("trained", "reward")
    names = [name for name in before if name in after]
    names.sort(key=lambda name: (name != trained, name in watched))
    paired = _paired(run, names)
    return [
        Change(
            name,
            name in watched,
            min(int(before[name]["n"]), int(after[name]["n"])),
            _estimate(before[name]),
            _estimate(after[name]),
            paired.get(name),
        )
        for name in names
    ]


def number(value: float) -> str:
    """Three decimals; three figures where that would hide the number."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def signed(estimate: Estimate) -> str:
    """A difference with its sign and interval."""
    sign = "+" if estimate.mean > 0 else ""
    return f"{sign}{estimate}"


def level(run: RunData) -> str:
    """The intervals' level in words, such as `95 %`."""
    return f"{100 * run.evaluation.get('level', LEVEL):g} %"


def _paired(run: RunData, names: Sequence[str]) -> dict[str, Comparison]:
    """The comparison of every metric whose single values are there before and after."""
    members = (run.config.get("evaluate") or {}).get("samples_per_prompt", 1)
    metrics = {}
    for name in names:
        old, new = (_values(run.evaluation[when][name]) for when in ("before", "after"))
        if len(old) == len(new):
            metrics[name] = Pairs(old, new, [index // members for index in range(len(old))])
    found = compare_metrics(metrics, level=run.evaluation.get("level", LEVEL))
    return {one.name: one for one in found}


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(*(_float(found[key]) for key in ("mean", "low", "high")))


def _values(found: Mapping[str, Any]) -> Sequence[float]:
    return [_float(value) for value in found.get("values", ())]


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
