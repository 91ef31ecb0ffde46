"""Scale of each timestep's loss that brings all gradient norms to their median (SAGE-GRPO)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import TransitionKind, Variant, mean_slope, step_variance


def equalizer_scales(
    kind: TransitionKind,
    sigmas: Float[Tensor, " N1"],
    *,
    eta: float,
    variant: Variant = "fixed",
) -> Float[Tensor, " N"]:
    """c_i = median_j n_j / n_i, n_i = |J_i| / std_i: RMS of d log_prob / d velocity per element.

    The median is the lower middle one. `released` counts the last step like any other; `fixed`
    leaves the last, deterministic step out of the median and gives it and every other step
    without noise the scale 1. With a log-prob that has no variance in it, cps' own, n_i would be
    2 std_i |J_i|; ours always divides by the variance.
    """
    norms = _gradient_norms(kind, sigmas.tolist(), eta, variant)
    live = torch.isfinite(norms) & (norms > 0)
    if variant == "fixed":
        live[-1] = False
        median = norms[live].median()
        return torch.where(live, median / norms, 1.0)
    norms = torch.where(live, norms, 1.0)
    return norms.median() / norms


def _gradient_norms(
    kind: TransitionKind, sigmas: list[float], eta: float, variant: Variant
) -> Float[Tensor, " N"]:
    norms = []
    for sigma, sigma_next in pairwise(sigmas):
        given = {"eta": eta, "sigma_1": sigmas[1], "variant": variant}
        std = math.sqrt(step_variance(kind, sigma, sigma_next, **given))
        slope = mean_slope(kind, sigma, sigma_next, **given)
        norms.append(abs(slope) / std if std > 0 else math.inf)
    return torch.tensor(norms, dtype=torch.float64)
