"""Diffusion-DPO: of two samples of a prompt, fit the better one more than the reference does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from mmrl.objectives.matching import matching_replay
from mmrl.types import Actions, Metrics, Rollout


def diffusion_dpo_loss(
    errors: Float[Tensor, "B T"],
    reference: Float[Tensor, "B T"],
    rewards: Float[Tensor, " B"],
    weights: Float[Tensor, "B T"],
    *,
    beta: float,
) -> tuple[Float[Tensor, ""], Metrics]:
    """-sum w log sigmoid(u) over pairs of rows (2i, 2i + 1) (Diffusion-DPO, arXiv:2311.12908).

    u = -beta / 2 [(e_w - e_l) - (reference e_w - e_l)], e the mean squared error of the two rows at
    one noise and noise level, w the row of the larger reward. A pair's weight is the sum of its
    rows'. A pair that ties, or holds a NaN, leaves.
    """
    pair = "(P two) T -> two P T"
    first, second = rearrange(rewards, "(P two) -> two P", two=2)
    sign = torch.sign(first - second).nan_to_num(0.0)[:, None]
    both = rearrange(weights, pair, two=2)
    live = (both != 0).all(0) & (sign != 0)
    gains = rearrange(errors - reference, pair, two=2)
    margin = -beta / 2 * sign * torch.where(live, gains[0] - gains[1], 0.0)
    shares = torch.where(live, both.sum(0), 0.0)
    return (shares * softplus(-margin)).sum(), {
        "margin": (shares * margin).sum().item(),
        "accuracy": (shares * (margin > 0)).sum().item(),
        "skipped": (both.sum(0) * (sign == 0)).sum().item(),
    }


@dataclass(frozen=True)
class DiffusionDpo:
    """Diffusion-DPO as an objective of groups of two; `advantages` rank them, NaN = not scored.

    The reference is the fixed anchor.
    """

    couples_decisions = False
    beta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta must be a finite number > 0, got {self.beta}")

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and metrics weighted like it; `skipped` is the share of pairs that left."""
        self._check(anchors, batch)
        return diffusion_dpo_loss(
            -current["denoise"].log_probs,
            -anchors["fixed"]["denoise"].log_probs,
            advantages,
            batch.weights["denoise"],
            beta=self.beta,
        )

    def _check(self, anchors: Mapping[str, Actions], batch: Rollout) -> None:
        if batch.group_size != 2:
            raise ValueError(f"a preference needs group_size 2, got {batch.group_size}")
        if "fixed" not in anchors:
            raise ValueError(
                "Diffusion-DPO compares errors with the fixed anchor, got anchors"
                f" {sorted(anchors)}; set trust_region.fixed (a coefficient of 0 will do)"
            )
        sigmas = matching_replay(batch).sigmas
        if not sigmas[0::2].equal(sigmas[1::2]):
            raise ValueError("both samples of a pair must be noised to the same sigmas")
