"""The score-function gradient, for one update on each rollout (REINFORCE, DDPO-SF)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.types import Actions, Metrics, Rollout


@dataclass(frozen=True)
class Reinforce:
    """-sum_bt w A log pi, added over action kinds (DDPO-SF, arXiv:2305.13301).

    Nothing corrects for a policy that has moved since the rollout: take one update per rollout.
    """

    couples_decisions = False

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and the mean log-prob of each kind; a decision of weight 0 may hold anything."""
        total = torch.zeros((), device=advantages.device)
        metrics: Metrics = {}
        for kind, stats in current.items():
            weights = batch.weights[kind]
            log_probs = torch.where(weights != 0, stats.log_probs, 0.0)
            gains = weights * batch.scales.get(kind, 1.0) * advantages[:, None]
            total = total - (gains * log_probs).sum()
            suffix = f"/{kind}" if len(current) > 1 else ""
            metrics[f"log_prob{suffix}"] = (weights * log_probs.detach()).sum().item()
        return total, metrics
