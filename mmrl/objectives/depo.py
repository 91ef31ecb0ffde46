"""What HyLaR's released code adds to a clipped policy gradient over tokens and latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.grpo import Grpo
from mmrl.types import Actions, Metrics, Rollout


@dataclass(frozen=True)
class ReleasedDepo:
    """Grpo + pull * sum_bl w kappa (1 - <h, z>), h the state behind the latent z it was fed.

    The release calls the sum a KL. It is none: no unit vectors, no A_d(kappa), negative as soon as
    <h, z> > 1. The KL of DePO itself is the trust region's, in closed form.
    """

    couples_decisions = False
    surrogate: Grpo
    pull: float

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The sum is logged as `latent_pull`."""
        loss, metrics = self.surrogate(current, anchors, batch, advantages)
        latent, weights = current["latent"], batch.weights["latent"]
        assert latent.mean is not None and latent.scale is not None
        drift = (weights * latent.scale * (1 - latent.mean[..., 0])).sum()
        return loss + self.pull * drift, metrics | {"latent_pull": drift.item()}
