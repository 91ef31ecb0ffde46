"""Policy gradient through surrogates over any mix of action kinds (GRPO, DePO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.surrogate import Surrogate, surrogate_loss
from mmrl.types import ActionKind, Actions, Metrics, Rollout


@dataclass(frozen=True)
class Grpo:
    """-sum_bt w min(r A, clip(r) A), added over action kinds (arXiv:2402.03300, eq. 3, no KL).

    The clip is a surrogate of each kind's own; others stand in `surrogate_kinds`.
    """

    surrogates: Mapping[ActionKind, Surrogate]

    @property
    def couples_decisions(self) -> bool:
        """Whether some kind has one ratio for a whole row."""
        return any(surrogate.mixes_decisions for surrogate in self.surrogates.values())

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
            given = (self.surrogates[kind], stats.log_probs, behavior, advantages)
            loss, found = surrogate_loss(*given, weights)
            if kind in batch.scales:
                loss, _ = surrogate_loss(*given, weights * batch.scales[kind])
            total = total + loss
            suffix = f"/{kind}" if len(current) > 1 else ""
            metrics |= {name + suffix: value for name, value in found.items()}
        return total, metrics
