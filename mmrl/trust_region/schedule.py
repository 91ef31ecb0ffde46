"""Which past policies the penalty pulls to, and when each of them moves."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from mmrl.config import Config
from mmrl.trust_region.controller import Coefficient
from mmrl.types import ActionKind


class AnchorBase(Config):
    """What every anchor has."""

    coefficient: Coefficient
    by_kind: dict[ActionKind, Coefficient | None] = Field(default_factory=dict)
    """Of single action kinds in the place of `coefficient`; null: no KL of that kind."""

    def of_kind(self, kind: str) -> Coefficient | None:
        """The coefficient of one action kind, None where the anchor does not pull on it."""
        return {str(k): chosen for k, chosen in self.by_kind.items()}.get(kind, self.coefficient)


class FixedAnchor(AnchorBase):
    """The policy the run began with; bounds the distance travelled."""


class PeriodicAnchor(AnchorBase):
    """anchor <- share * policy + (1 - share) * anchor, every `refresh_every` optimizer steps.

    A share of 1 is a copy; it bounds the speed of travel. TR-DPO's (arXiv:2404.09656) is a share of
    0.6 every 512 steps.
    """

    refresh_every: int = Field(default=10, ge=1)
    share: float = Field(default=1.0, gt=0, le=1)


class StepwiseAnchor(AnchorBase):
    """The policy one optimizer step ago; bounds a single step."""


class EmaAnchor(AnchorBase):
    """anchor <- decay * anchor + (1 - decay) * policy, after every optimizer step.

    With a ramp the decay is min(decay, ramp * number of the step): the anchor starts out close.
    """

    decay: float = Field(default=0.99, ge=0, le=1)
    ramp: float | None = Field(default=None, gt=0)


AnchorKind = Literal["fixed", "periodic", "stepwise", "ema"]
AnchorConfig = FixedAnchor | PeriodicAnchor | StepwiseAnchor | EmaAnchor


class TrustRegion(Config):
    """Any subset of four anchors; SAGE-GRPO's pair is periodic + stepwise (none: no penalty)."""

    fixed: FixedAnchor | None = None
    periodic: PeriodicAnchor | None = None
    stepwise: StepwiseAnchor | None = None
    ema: EmaAnchor | None = None
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """KL estimator of token log-probs; continuous actions use their closed forms."""
    importance_weighted: bool = False
    """Token KL times the ratio to the policy that sampled: right also where a rollout is used more
    than once (TRL's `use_bias_correction_kl`), as k2 and k3 alone are not."""

    @model_validator(mode="after")
    def _estimator_of_a_loss(self) -> TrustRegion:
        if self.estimator == "k1" and self.anchors():
            raise ValueError(
                "estimator: the gradient of k1 in a loss is zero on average; use k2 or k3"
            )
        return self

    def anchors(self) -> dict[AnchorKind, AnchorConfig]:
        """The anchors that are switched on."""
        every: dict[AnchorKind, AnchorConfig | None] = {
            "fixed": self.fixed,
            "periodic": self.periodic,
            "stepwise": self.stepwise,
            "ema": self.ema,
        }
        return {kind: anchor for kind, anchor in every.items() if anchor is not None}


def averages(anchor: AnchorConfig) -> bool:
    """Whether the anchor is a mean of past policies, and none of them itself."""
    return isinstance(anchor, EmaAnchor) or (
        isinstance(anchor, PeriodicAnchor) and anchor.share < 1
    )


def blend_before(anchor: AnchorConfig) -> float:
    """Share of the policy that enters the anchor just before an optimizer step."""
    return 1.0 if isinstance(anchor, StepwiseAnchor) else 0.0


def blend_after(anchor: AnchorConfig, updates: int) -> float:
    """Share of the policy that enters the anchor after optimizer step number `updates` (from 1)."""
    match anchor:
        case PeriodicAnchor():
            return anchor.share if updates % anchor.refresh_every == 0 else 0.0
        case EmaAnchor():
            ramp = math.inf if anchor.ramp is None else anchor.ramp
            return 1.0 - min(anchor.decay, ramp * updates)
        case _:
            return 0.0
