"""Scale of each timestep's loss that brings all gradient norms to their median (SAGE-GRPO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.ddim import Prediction, ddim_mean_slope, ddim_std
from mmrl.diffusion.timestep_weights import mean_one
from mmrl.diffusion.transitions import TransitionKind, Variant, mean_slope, step_variance

Normalize = Literal["none", "mean1"]
RELEASED_STD_FLOOR = 1e-12
"""SAGE's release divides by this where a step has no noise."""


def equalizer_scales(
    kind: TransitionKind,
    sigmas: Float[Tensor, " N1"],
    *,
    eta: float,
    variant: Variant = "fixed",
    normalize: Normalize = "none",
    score_correction: bool = True,
    steps: Sequence[int] | None = None,
) -> Float[Tensor, " N"]:
    """c_i = median_j n_j / n_i, n_i = |J_i| / std_i: RMS of d log_prob / d velocity per element.

    The median is the lower middle one. A step without noise has no n_i: `fixed` leaves it out of
    the median and gives it the scale 1, `released` divides by 1e-12 in its place. `paper` has
    n_i = 1 / std_i, and none where its std is infinite. With a log-prob that has no variance in
    it, cps' own, n_i would be 2 std_i |J_i|; ours always divides by it.
    `mean1` divides by the mean: sage's is about 1.7 at 20 steps of shift 5. Median and mean run
    over `steps`, those that are trained (None: all); the others have the scale 1.
    """
    chosen = _chosen(len(sigmas) - 1, steps)
    norms = _gradient_norms(kind, sigmas.tolist(), eta, variant, score_correction, chosen)
    if variant == "released":
        norms = torch.where(torch.isfinite(norms) & (norms > 0), norms, 1.0)
    return _scales(norms, chosen, len(sigmas) - 1, normalize)


def ddim_equalizer_scales(
    alpha_bars: Float[Tensor, " N1"],
    *,
    eta: float,
    prediction: Prediction,
    normalize: Normalize = "none",
    steps: Sequence[int] | None = None,
) -> Float[Tensor, " N"]:
    """The same scales for DDIM(eta) steps along `alpha_bars`: n_i = |d mean / d output| / std_i."""
    chosen = _chosen(len(alpha_bars) - 1, steps)
    levels, norms = alpha_bars.tolist(), []
    for pair in ((levels[step], levels[step + 1]) for step in chosen):
        slope = ddim_mean_slope(*pair, eta=eta, prediction=prediction)
        norms.append(_ratio(slope, ddim_std(*pair, eta=eta)))
    found = torch.tensor(norms, dtype=torch.float64)
    return _scales(found, chosen, len(alpha_bars) - 1, normalize)


def _chosen(num_steps: int, steps: Sequence[int] | None) -> list[int]:
    return list(range(num_steps) if steps is None else steps)


def _scales(
    norms: Float[Tensor, " T"], chosen: list[int], num_steps: int, normalize: Normalize
) -> Float[Tensor, " N"]:
    """Scales of all steps from the norms of the chosen ones."""
    live = torch.isfinite(norms) & (norms > 0)
    found = torch.where(live, norms[live].median() / norms, 1.0)
    scales = torch.ones(num_steps, dtype=torch.float64)
    scales[chosen] = mean_one(found) if normalize == "mean1" else found
    return scales


def _gradient_norms(
    kind: TransitionKind,
    sigmas: list[float],
    eta: float,
    variant: Variant,
    score_correction: bool,
    chosen: list[int],
) -> Float[Tensor, " T"]:
    floor = RELEASED_STD_FLOOR if variant == "released" else 0.0
    norms = []
    for sigma, sigma_next in ((sigmas[step], sigmas[step + 1]) for step in chosen):
        if variant == "paper" and kind == "sage" and sigma == 1:
            norms.append(0.0)
            continue
        given = {"eta": eta, "sigma_1": sigmas[1], "variant": variant}
        std = max(math.sqrt(step_variance(kind, sigma, sigma_next, **given)), floor)
        slope = 1.0
        if variant != "paper":
            given["score_correction"] = score_correction
            slope = mean_slope(kind, sigma, sigma_next, **given)
        norms.append(_ratio(slope, std))
    return torch.tensor(norms, dtype=torch.float64)


def _ratio(slope: float, std: float) -> float:
    return abs(slope) / std if std > 0 else math.inf
