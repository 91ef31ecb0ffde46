"""What an evaluation says: each metric before and after, the change, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.report.run import RunData

LEVEL = 0.95
"""Of intervals whose evaluation does not say."""
Verdict = Literal["rose", "fell", "no clear change"]


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
    """One metric of the held-out set. `difference` pairs the same prompt and seed."""

    name: str
    watched: bool
    n: int
    before: Estimate
    after: Estimate
    difference: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """Rose or fell only where the interval of the change leaves out 0.

        Without single values to pair, the two intervals must not touch.
        """
        if self.difference is not None:
            low, high = self.difference.low, self.difference.high
        else:
            low, high = self.after.low - self.before.high, self.after.high - self.before.low
        return "rose" if low > 0 else "fell" if high < 0 else "no clear change"


def changes(run: RunData) -> list[Change]:
    """Metrics measured both before and after: the trained sum, what is trained, what is watched."""
    before, after = run.evaluation.get("before", {}), run.evaluation.get("after", {})
    watched = set(run.evaluation.get("watched", ()))
    trained = run.evaluation.get("trained", "reward")
    names = [name for name in before if name in after]
    names.sort(key=lambda name: (name != trained, name in watched))
    return [_change(run, name, name in watched, before[name], after[name]) for name in names]


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


def _change(
    run: RunData, name: str, watched: bool, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Change:
    old, new = _values(before), _values(after)
    difference = None
    if old and len(old) == len(new):
        members = (run.config.get("evaluate") or {}).get("samples_per_prompt", 1)
        prompts = [index // members for index in range(len(old))]
        gains = [later - earlier for earlier, later in zip(old, new, strict=True)]
        share = run.evaluation.get("level", LEVEL)
        difference = Estimate(*bootstrap_ci(gains, groups=prompts, level=share))
    n = min(int(before["n"]), int(after["n"]))
    return Change(name, watched, n, _estimate(before), _estimate(after), difference)


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(*(_float(found[key]) for key in ("mean", "low", "high")))


def _values(found: Mapping[str, Any]) -> Sequence[float]:
    return [_float(value) for value in found.get("values", ())]


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
