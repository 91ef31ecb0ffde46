"""The coefficient of one anchor: constant, scheduled over steps, or driven by the KL it sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from mmrl.config import Config

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Scheduled(Config):
    """From `start` to `end` over `steps` optimizer steps, then `end`."""

    kind: Literal["linear", "cosine", "geometric"]
    start: NonNegative
    end: NonNegative
    steps: int = Field(ge=1)

    @model_validator(mode="after")
    def _geometric_needs_positive(self) -> Scheduled:
        if self.kind == "geometric" and min(self.start, self.end) <= 0:
            raise ValueError("kind: a geometric schedule needs start > 0 and end > 0")
        return self


class Proportional(Config):
    """c <- c (1 + clip(KL / target - 1, +-limit) n / horizon): more KL, larger coefficient.

    n counts the samples of the optimizer step, horizon the samples over which a KL at twice the
    target or more raises c by `limit` (Ziegler et al., arXiv:1909.08593, section 2.2).
    """

    kind: Literal["proportional"]
    initial: Positive
    target: Positive
    horizon: Positive
    limit: float = Field(default=0.2, gt=0, le=1)
    minimum: NonNegative = 0.0
    maximum: Positive = math.inf


class DualAscent(Config):
    """c <- clip(c + rate (KL - target), 0, maximum): the Lagrange multiplier of KL <= target."""

    kind: Literal["dual_ascent"]
    initial: NonNegative = 0.0
    target: Positive
    rate: Positive
    maximum: Positive = math.inf


class SageRelease(Config):
    """The controller of SAGE-GRPO's release, for comparison: more KL makes the coefficient smaller.

    After observation n < horizon: c = minimum + (target - minimum) n / horizon, the target KL read
    as a coefficient. From then on c <- 0.9 c where the mean of the last 10 KLs is above 1.5 target,
    1.1 c where it is below half of it, cut to minimum .. maximum. The release observes every
    micro-step (`docs/errata.md`), this one every optimizer step.
    """

    kind: Literal["sage_release"]
    target: Positive = 1e-5
    minimum: Positive = 1e-7
    maximum: Positive = 1e-5
    horizon: int = Field(default=100, ge=1)

    @property
    def initial(self) -> float:
        """The coefficient before the first observation."""
        return self.minimum


Adaptive = Proportional | DualAscent | SageRelease


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if isinstance(value, int | float):
        return "constant"
    return "scheduled" if kind in ("linear", "cosine", "geometric") else str(kind)


Coefficient = Annotated[
    Annotated[NonNegative, Tag("constant")]
    | Annotated[Scheduled, Tag("scheduled")]
    | Annotated[Proportional, Tag("proportional")]
    | Annotated[DualAscent, Tag("dual_ascent")]
    | Annotated[SageRelease, Tag("sage_release")],
    Discriminator(
        _tag,
        custom_error_type="coefficient",
        custom_error_message=(
            "a number, or a section whose kind is linear, cosine, geometric, proportional, "
            "dual_ascent or sage_release"
        ),
    ),
]

MAX_SKIPPED_IN_A_ROW = 3
RELEASED_WINDOW = 10
"""KLs that SAGE-GRPO's release averages."""
RELEASED_SLACK = 0.5
"""Share of the target by which their mean may miss it before the release moves."""


@dataclass(frozen=True)
class ControllerState:
    """What a coefficient remembers between optimizer steps."""

    value: float
    skipped: int = 0
    """Observations that were not finite, in a row."""
    observed: int = 0
    """Observations so far, where the rule counts them."""
    recent: Sequence[float] = ()
    """The last KLs, where the rule looks at several."""


def initial_state(coefficient: Coefficient) -> ControllerState:
    """The state before the first optimizer step."""
    return ControllerState(current(coefficient, None, updates=0))


def current(coefficient: Coefficient, state: ControllerState | None, *, updates: int) -> float:
    """The coefficient in force after `updates` optimizer steps."""
    if isinstance(coefficient, Scheduled):
        return scheduled_value(coefficient, updates)
    if isinstance(coefficient, Adaptive):
        return coefficient.initial if state is None else state.value
    return float(coefficient)


def scheduled_value(schedule: Scheduled, updates: int) -> float:
    """Value of the schedule after `updates` optimizer steps, constant past its end."""
    share = min(updates / schedule.steps, 1.0)
    start, end = schedule.start, schedule.end
    if schedule.kind == "linear":
        return start + (end - start) * share
    if schedule.kind == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
    return start * (end / start) ** share


def observe(
    coefficient: Coefficient, state: ControllerState, *, kl: float, count: float
) -> ControllerState:
    """The state after one optimizer step whose mean KL over `count` samples of all ranks was `kl`.

    A KL that is not finite changes nothing; three in a row raise FloatingPointError. A negative
    estimate counts as 0; a step with no sample is no observation.
    """
    if not isinstance(coefficient, Adaptive) or count == 0:
        return state
    if not math.isfinite(kl):
        if state.skipped + 1 >= MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(f"KL was {kl} in {MAX_SKIPPED_IN_A_ROW} updates in a row")
        return replace(state, skipped=state.skipped + 1)
    seen = max(kl, 0.0)
    if isinstance(coefficient, SageRelease):
        return _released(coefficient, state, seen)
    if isinstance(coefficient, DualAscent):
        value = state.value + coefficient.rate * (seen - coefficient.target)
        return ControllerState(min(max(value, 0.0), coefficient.maximum))
    error = seen / coefficient.target - 1
    error = min(max(error, -coefficient.limit), coefficient.limit)
    value = state.value * (1 + error * count / coefficient.horizon)
    return ControllerState(min(max(value, coefficient.minimum), coefficient.maximum))


def _released(rule: SageRelease, state: ControllerState, kl: float) -> ControllerState:
    observed, recent = state.observed + 1, (*state.recent, kl)[-RELEASED_WINDOW:]
    if observed < rule.horizon:
        value = rule.minimum + (rule.target - rule.minimum) * observed / rule.horizon
    else:
        miss = sum(recent) / len(recent) - rule.target
        over, under = miss > RELEASED_SLACK * rule.target, miss < -RELEASED_SLACK * rule.target
        value = state.value * (0.9 if over else 1.1 if under else 1.0)
        value = min(max(value, rule.minimum), rule.maximum)
    return ControllerState(value, observed=observed, recent=recent)
