"""Scale of each timestep's loss that brings all gradient norms to their median (SAGE-GRPO)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import TransitionKind, Variant, mean_slope, step_variance

RELEASED_STD_FLOOR = 1e-12
"""SAGE's release divides by this where a step has no noise."""


def equalizer_scales(
    kind: TransitionKind,
    sigmas: Float[Tensor, " N1"],
    *,
    eta: float,
    variant: Variant = "fixed",
) -> Float[Tensor, " N"]:
    """c_i = median_j n_j / n_i, n_i = |J_i| / std_i: RMS of d log_prob / d velocity per element.

    The median is the lower middle one. A step without noise has no n_i: `fixed` leaves it out of
    the median and gives it the scale 1, `released` divides by 1e-12 in its place. With a log-prob
    that has no variance in it, cps' own, n_i would be 2 std_i |J_i|; ours always divides by it.
    """
    norms = _gradient_norms(kind, sigmas.tolist(), eta, variant)
    live = torch.isfinite(norms) & (norms > 0)
    if variant == "released":
        norms = torch.where(live, norms, 1.0)
        return norms.median() / norms
    return torch.where(live, norms[live].median() / norms, 1.0)


def _gradient_norms(
    kind: TransitionKind, sigmas: list[float], eta: float, variant: Variant
) -> Float[Tensor, " N"]:
    floor = RELEASED_STD_FLOOR if variant == "released" else 0.0
    norms = []
    for sigma, sigma_next in pairwise(sigmas):
        given = {"eta": eta, "sigma_1": sigmas[1], "variant": variant}
        std = max(math.sqrt(step_variance(kind, sigma, sigma_next, **given)), floor)
        slope = mean_slope(kind, sigma, sigma_next, **given)
        norms.append(abs(slope) / std if std > 0 else math.inf)
    return torch.tensor(norms, dtype=torch.float64)
