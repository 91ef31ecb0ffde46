"""Weight of each timestep's loss from the noise of its step, as an alternative to the equalizer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import TransitionKind, Variant, step_stds


def mean_one(weights: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """w_i / mean_j w_j: the loss keeps its scale."""
    mean = weights.mean()
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
) -> Float[Tensor, " N"]:
    """std_i / mean_j std_j: steps that explore more count more (TempFlow-GRPO, arXiv:2508.04324).

    For a DDIM schedule: `mean_one(ddim_stds(...))`.
    """
    return mean_one(step_stds(kind, sigmas, eta=eta, variant=variant))
