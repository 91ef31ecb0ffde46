"""DiffusionNFT: pull the velocity toward good samples and push it off bad ones, likelihood-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.matching import difference, matching_replay, velocity
from mmrl.types import Actions, Metrics, Rollout

SMALLEST_ERROR = 1e-5
"""Floor of the mean absolute x0 error that a squared error is divided by (authors' code)."""


def nft_loss(
    current: Float[Tensor, "B T D"],
    old: Float[Tensor, "B T D"],
    target: Float[Tensor, "B T D"],
    sigmas: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    weights: Float[Tensor, "B T"],
    *,
    beta: float,
    advantage_clip: float,
) -> tuple[Float[Tensor, ""], Metrics]:
    """c sum_bt w [p L(v+) + (1 - p) L(v-)] / beta (DiffusionNFT, arXiv:2509.16117).

    Velocities: v+- = old +- beta (current - old), p = clamp(1/2 + A / (2 c), 0, 1), c the
    advantage clip. L is the mean squared error of x0 = x - sigma v over its mean absolute error
    held constant, and x0 errs by sigma (target - v).
    """
    live = weights != 0
    step = beta * difference(current, old, live)
    error = difference(old, target, live)
    good = (advantages / advantage_clip / 2 + 0.5).clamp(0, 1)[:, None]
    toward, away = _x0_error(error + step, sigmas), _x0_error(error - step, sigmas)
    loss = advantage_clip / beta * (weights * (good * toward + (1 - good) * away)).sum()
    return loss, {
        "toward": (weights * toward).sum().item(),
        "away": (weights * away).sum().item(),
        "good_share": (weights * good).sum().item(),
    }


def _x0_error(
    velocity_error: Float[Tensor, "B T D"], sigmas: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    size = (sigmas * velocity_error.detach().abs().mean(-1)).clamp(min=SMALLEST_ERROR)
    return sigmas.square() * velocity_error.square().mean(-1) / size


@dataclass(frozen=True)
class Nft:
    """DiffusionNFT as an objective; old is the EMA anchor, or what sampled where there is none."""

    couples_decisions = False
    beta: float
    advantage_clip: float

    def __post_init__(self) -> None:
        for name in ("beta", "advantage_clip"):
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
        replay, stats = matching_replay(batch), current["denoise"]
        weights = batch.weights["denoise"]
        return nft_loss(
            velocity(stats),
            velocity(anchors.get("ema", batch.behavior)["denoise"]),
            replay.target,
            replay.sigmas,
            advantages,
            weights,
            beta=self.beta,
            advantage_clip=self.advantage_clip,
        )
