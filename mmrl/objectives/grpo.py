"""Clipped policy gradient over any mix of action kinds, each with its own clip (GRPO, DePO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.clipped import clipped_surrogate
from mmrl.types import ActionKind, Actions, Metrics, Rollout


@dataclass(frozen=True)
class Clip:
    """The ratio is kept in [1 - low, 1 + high], and below `dual` where the advantage is < 0."""

    low: float
    high: float
    dual: float | None = None


@dataclass(frozen=True)
class Grpo:
    """-sum_bt w min(r A, clip(r) A), added over action kinds (arXiv:2402.03300, eq. 3, no KL)."""

    couples_decisions: ClassVar[bool] = False
    clips: Mapping[ActionKind, Clip]

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and metrics named `<metric>/<kind>` where there is more than one kind.

        A decision's scale multiplies its loss; metrics are plain means over decisions.
        """
        total = torch.zeros((), device=advantages.device)
        metrics: Metrics = {}
        for kind, stats in current.items():
            behavior, weights = batch.behavior[kind].log_probs, batch.weights[kind]
            clip = self.clips[kind]
            bounds = {"clip_low": clip.low, "clip_high": clip.high, "clip_dual": clip.dual}
            loss, found = clipped_surrogate(
                stats.log_probs, behavior, advantages, weights, **bounds
            )
            if kind in batch.scales:
                scaled = weights * batch.scales[kind]
                loss, _ = clipped_surrogate(stats.log_probs, behavior, advantages, scaled, **bounds)
            total = total + loss
            suffix = f"/{kind}" if len(current) > 1 else ""
            metrics |= {name + suffix: value for name, value in found.items()}
        return total, metrics
