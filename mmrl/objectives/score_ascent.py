"""The gradient of a differentiable score itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.types import Actions, Metrics, Rollout


@dataclass(frozen=True)
class ScoreAscent:
    """-sum_b w score_b, the score in the place of the log-prob (DRaFT, arXiv:2309.17400, eq. 3).

    A sample that could not be scored (NaN) adds nothing.
    """

    couples_decisions = False

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and the mean score."""
        weights, scores = batch.weights["denoise"], current["denoise"].log_probs
        known = torch.where(scores.isnan(), 0.0, scores)
        return -(weights * known).sum(), {"score": (weights * known.detach()).sum().item()}
