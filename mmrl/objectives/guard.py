"""GRPO-Guard: a log-ratio without the negative mean and the step-dependent spread of Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.clipped import Clip
from mmrl.objectives.matching import difference
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.types import Actions, Metrics, Rollout


def regulated_log_ratio(
    log_ratio: Float[Tensor, "B T"],
    mean: Float[Tensor, "B T D"],
    behavior_mean: Float[Tensor, "B T D"],
    std: Float[Tensor, "B T"],
    weights: Float[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """std log_ratio + mean_d (mean - behavior)^2 / (2 std) (GRPO-Guard, arXiv:2510.22319, eq. 8).

    With a step drawn as behavior + std z it is mean_d z (mean - behavior): 0 on average, and of
    one slope at every noise level. Decisions of weight 0 give 0.
    """
    live = weights != 0
    safe = torch.where(live, std, 1.0)
    squares = difference(mean, behavior_mean, live).square().mean(-1)
    return torch.where(live, safe * log_ratio + squares / (2 * safe), 0.0)


@dataclass(frozen=True)
class Guard:
    """The clipped surrogate on regulated log-ratios of denoising steps.

    The paper's second part, a weight of 1 / |dt| a step, comes in as the batch's step scales.
    """

    couples_decisions = False
    clip: Clip

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss with step scales, and metrics as plain means over decisions."""
        stats, behavior = current["denoise"], batch.behavior["denoise"]
        weights = batch.weights["denoise"]
        if stats.mean is None or behavior.mean is None or behavior.scale is None:
            raise ValueError("GRPO-Guard needs the mean and std of every step; use a video policy")
        if bool(((weights != 0) & ~(behavior.scale > 0)).any()):
            raise ValueError("std must be > 0 on trained steps: an ODE step has no ratio")
        live = weights != 0
        work = torch.promote_types(stats.log_probs.dtype, torch.float32)
        log_ratio = torch.where(live, stats.log_probs.to(work) - behavior.log_probs, 0.0)
        regulated = regulated_log_ratio(
            log_ratio, stats.mean, behavior.mean, behavior.scale, weights
        )
        origin = torch.zeros_like(regulated)
        loss, metrics = surrogate_loss(self.clip, regulated, origin, advantages, weights)
        metrics["approx_kl"] = -(weights * log_ratio.detach()).sum().item()
        if "denoise" in batch.scales:
            scaled = weights * batch.scales["denoise"]
            loss, _ = surrogate_loss(self.clip, regulated, origin, advantages, scaled)
        return loss, metrics
