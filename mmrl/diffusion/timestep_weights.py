"""Weight of each timestep's loss from the noise of its step, as an alternative to the equalizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import TransitionKind, Variant, step_stds


def mean_one(
    weights: Float[Tensor, " N"], steps: Sequence[int] | None = None
) -> Float[Tensor, " N"]:
    """w_i / mean_j w_j: the loss keeps its scale. The mean runs over `steps`, None: over all."""
    mean = (weights if steps is None else weights[list(steps)]).mean()
    if not (torch.isfinite(mean) and mean > 0):
        raise ValueError(
            f"weights must be finite with a mean > 0, got a mean of {mean.item():.3g}; "
            "a schedule without noise (eta 0) has no weights"
        )
    return weights / mean


def uniform_weights(sigmas: Float[Tensor, " N1"]) -> Float[Tensor, " N"]:
    """1 for every step."""
    return torch.ones(len(sigmas) - 1, dtype=torch.float64)


def noise_level_weights(
    kind: TransitionKind,
    sigmas: Float[Tensor, " N1"],
    *,
    eta: float,
    variant: Variant = "fixed",
    steps: Sequence[int] | None = None,
) -> Float[Tensor, " N"]:
    """std_i / mean_j std_j: steps that explore more count more (TempFlow-GRPO, arXiv:2508.04324).

    Outside `steps`, where they are given, a weight is 0. For a DDIM schedule: `mean_one` of
    `ddim_stds`.
    """
    return mean_one(step_stds(kind, sigmas, eta=eta, variant=variant, steps=steps), steps)
