"""Advantage-weighted matching: the clipped surrogate on a matching error read as a log-prob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.clipped import Clip
from mmrl.objectives.matching import matching_replay
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.types import Actions, Metrics, Rollout

SMALLEST_ERROR = 1e-10
"""Added to the squared error so that its root has a slope at 0 (authors' code)."""


def matching_log_prob(
    errors: Float[Tensor, "B T"], sigmas: Float[Tensor, "B T"], *, power: float
) -> Float[Tensor, "B T"]:
    """-sigma / p [(e + s)^p - s^p], e the mean squared velocity error (AWM, arXiv:2509.25050).

    Power 1 is -sigma e; a smaller one lets large errors count less.
    """
    return -sigmas / power * ((errors + SMALLEST_ERROR) ** power - SMALLEST_ERROR**power)


@dataclass(frozen=True)
class Awm:
    """AWM as an objective: ratio of matching log-probs at the same noise and noise level."""

    couples_decisions = False
    clip: Clip
    power: float
    advantage_clip: float
    """Advantages are cut at +-advantage_clip and divided by it."""

    def __post_init__(self) -> None:
        for name in ("power", "advantage_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and metrics weighted like it."""
        stats, weights = current["denoise"], batch.weights["denoise"]
        sigmas = matching_replay(batch).sigmas
        new, old = (
            matching_log_prob(
                torch.where(weights != 0, -table.log_probs, 0.0), sigmas, power=self.power
            )
            for table in (stats, batch.behavior["denoise"])
        )
        bounded = advantages.clamp(-self.advantage_clip, self.advantage_clip) / self.advantage_clip
        return surrogate_loss(self.clip, new, old, bounded, weights)
