"""The clipped surrogate of PPO as a weighted sum over decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.surrogate import Decisions, Terms, surrogate_loss
from mmrl.types import Metrics


@dataclass(frozen=True)
class Clip:
    """min(r A, clip(r, 1 - low, 1 + high) A), r = pi / behavior (PPO, arXiv:1707.06347, eq. 7).

    Where A < 0, `dual` = c > 1 keeps it above c A: a bad decision's ratio pulls up to c (dual-clip
    PPO, arXiv:1912.09729, eq. 5).
    """

    mixes_decisions: ClassVar[bool] = False
    low: float
    high: float
    dual: float | None = None

    def __call__(self, decisions: Decisions) -> Terms:
        ratio, advantages = decisions.log_ratio.exp(), decisions.advantages
        gain = torch.minimum(
            ratio * advantages, ratio.clamp(1 - self.low, 1 + self.high) * advantages
        )
        low = (ratio < 1 - self.low) & (advantages < 0)
        high = (ratio > 1 + self.high) & (advantages > 0)
        if self.dual is not None:
            gain = torch.where(advantages < 0, torch.maximum(gain, self.dual * advantages), gain)
            high = high | ((ratio > self.dual) & (advantages < 0))
        return Terms(gain, low, high)


def clipped_surrogate(
    log_probs: Float[Tensor, "B T"],
    behavior: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    weights: Float[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """-sum_bt w min(r A, clip(r, 1 - low, 1 + high) A): `surrogate_loss` of a `Clip`."""
    clip = Clip(clip_low, clip_high, clip_dual)
    return surrogate_loss(clip, log_probs, behavior, advantages, weights)
