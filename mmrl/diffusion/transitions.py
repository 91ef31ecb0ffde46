"""Mean and std of one stochastic step from sigma to sigma', given the velocity v = noise - data.

With delta = sigma - sigma', x0 = x - sigma v and eps = x + (1 - sigma) v, the Euler family is
x' ~ N(x - delta v - S / (2 sigma) eps, S), and its members differ only in the variance S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

TransitionKind = Literal["ode", "flow", "dance", "sage", "cps", "bridge"]
Variant = Literal["fixed", "paper", "released"]
RELEASED_SIGMA_CLAMP = 0.997
"""SAGE's release clamps sigma here inside its logarithm."""
RELEASED_KL_EPSILON = 1e-6
"""SAGE's release adds this to the variance that its KL divides by."""


@dataclass(frozen=True)
class Transition:
    """Gaussian of the next state: mean, one std for every element, and the estimate of the data."""

    mean: Float[Tensor, "B ..."]
    std: Float[Tensor, ""]
    denoised: Float[Tensor, "B ..."]


def transition(
    kind: TransitionKind,
    x: Float[Tensor, "B ..."],
    velocity: Float[Tensor, "B ..."],
    sigma: float,
    sigma_next: float,
    *,
    eta: float,
    sigma_1: float,
    variant: Variant = "fixed",
    score_correction: bool = True,
) -> Transition:
    """The step's Gaussian, its std the true one (without exception the sqrt of the variance drawn).

    `sigma_1` is the second noise level of the schedule: Flow-GRPO divides by 1 - sigma_1 where
    sigma = 1. Without `score_correction` the Euler family's mean is the ODE step, and its marginals
    are no longer those of the ODE.
    Sources: flow arXiv:2505.05470, dance arXiv:2505.07818, cps arXiv:2509.05952.
    """
    _check(kind, sigma, sigma_next, eta, score_correction)
    denoised = x - sigma * velocity
    noise = x + (1 - sigma) * velocity
    if kind in ("cps", "bridge"):
        kept, std = _recombination(kind, sigma, sigma_next, eta)
        mean = (1 - sigma_next) * denoised + kept * noise
    else:
        s = step_variance(kind, sigma, sigma_next, eta=eta, sigma_1=sigma_1, variant=variant)
        std = math.sqrt(s)
        mean = x - (sigma - sigma_next) * velocity
        if s > 0 and score_correction:
            mean = mean - (s / (2 * sigma)) * noise
    return Transition(mean, torch.tensor(std, dtype=x.dtype, device=x.device), denoised)


def step_variance(
    kind: TransitionKind,
    sigma: float,
    sigma_next: float,
    *,
    eta: float,
    sigma_1: float,
    variant: Variant = "fixed",
) -> float:
    """Variance S of one step; ValueError where SAGE's formula is infinite or turns negative.

    sage: eta^2 [ln((1 - sigma') / (1 - sigma)) - delta], the exact integral of the diffusion whose
    left-end value times delta is flow's. At sigma = 1 it diverges: the fixed variant caps the gap
    1 - sigma from below by min(0.003, (1 - sigma') / e), the released one caps it everywhere by
    0.003, the paper has no cap.
    """
    delta = sigma - sigma_next
    match kind:
        case "ode":
            return 0.0
        case "dance":
            return eta**2 * delta
        case "flow":
            reference = sigma_1 if sigma == 1 else sigma
            return eta**2 * sigma / (1 - reference) * delta
        case "sage":
            return _sage_variance(sigma, sigma_next, eta, variant)
        case "cps" | "bridge":
            return _recombination(kind, sigma, sigma_next, eta)[1] ** 2


def mean_slope(
    kind: TransitionKind,
    sigma: float,
    sigma_next: float,
    *,
    eta: float,
    sigma_1: float,
    variant: Variant = "fixed",
    score_correction: bool = True,
) -> float:
    """J = d mean / d velocity, one number for all elements."""
    _check(kind, sigma, sigma_next, eta, score_correction)
    if kind in ("cps", "bridge"):
        kept, _ = _recombination(kind, sigma, sigma_next, eta)
        return -sigma * (1 - sigma_next) + (1 - sigma) * kept
    if not score_correction:
        return -(sigma - sigma_next)
    s = step_variance(kind, sigma, sigma_next, eta=eta, sigma_1=sigma_1, variant=variant)
    return -((sigma - sigma_next) + s * (1 - sigma) / (2 * sigma))


def step_stds(
    kind: TransitionKind,
    sigmas: Float[Tensor, " N1"],
    *,
    eta: float,
    variant: Variant = "fixed",
    steps: Sequence[int] | None = None,
) -> Float[Tensor, " N"]:
    """sqrt(S_i) of every step of a schedule, float64; 0 outside `steps` where they are given."""
    levels = sigmas.tolist()
    given = {"eta": eta, "sigma_1": levels[1], "variant": variant}
    chosen = range(len(levels) - 1) if steps is None else steps
    variances = torch.zeros(len(levels) - 1, dtype=torch.float64)
    for step in chosen:
        variances[step] = step_variance(kind, levels[step], levels[step + 1], **given)
    return variances.sqrt()


def released_kl_std(
    kind: TransitionKind, sigma: float, sigma_next: float, *, eta: float, sigma_1: float
) -> float:
    """sqrt(S + 1e-6), for flow sqrt(S / delta + 1e-6): `ops.gaussian.kl` as SAGE's release has it.

    Flow-GRPO's step returns its std without sqrt(delta), so its KL is delta times the true one and
    a coefficient means something else. A step without noise gets the weight 1 / 2e-6.
    """
    given = {"eta": eta, "sigma_1": sigma_1}
    s = step_variance(kind, sigma, sigma_next, variant="released", **given)
    unit = sigma - sigma_next if kind == "flow" else 1.0
    return math.sqrt(s / unit + RELEASED_KL_EPSILON)


def _sage_variance(sigma: float, sigma_next: float, eta: float, variant: Variant) -> float:
    floor = 1 - RELEASED_SIGMA_CLAMP
    if variant == "released":
        gap = max(1 - sigma, floor)
    elif variant == "paper" and sigma == 1:
        raise ValueError(
            "the paper's SAGE variance is infinite at sigma 1; make the first step deterministic "
            "or use variant 'fixed'"
        )
    elif sigma < 1:
        gap = 1 - sigma
    else:
        gap = min(floor, (1 - sigma_next) / math.e)
    s = eta**2 * (math.log((1 - sigma_next) / gap) - (sigma - sigma_next))
    if s < 0:
        raise ValueError(
            f"the released SAGE variance is negative ({s:.3g}) at sigma {sigma:.4f} -> "
            f"{sigma_next:.4f}: its clamp at {RELEASED_SIGMA_CLAMP} outweighs so short a step; "
            "use fewer steps or variant 'fixed'"
        )
    return s


def _recombination(
    kind: TransitionKind, sigma: float, sigma_next: float, eta: float
) -> tuple[float, float]:
    """Coefficient of eps and std, for the two kinds that freeze x0: sigma' r, sigma' sqrt(1 - r^2).

    cps: r = cos(eta pi / 2) at every step. bridge: r = [sigma' (1 - sigma) / ((1 - sigma') sigma)]
    ^ (eta^2 / 2), the exact bridge of flow's diffusion.
    """
    if kind == "cps":
        angle = eta * math.pi / 2
        return sigma_next * math.cos(angle), sigma_next * math.sin(angle)
    if eta == 0:
        return sigma_next, 0.0
    odds = sigma_next * (1 - sigma) / ((1 - sigma_next) * sigma)
    r = odds ** (eta**2 / 2)
    return sigma_next * r, sigma_next * math.sqrt(max(1 - r**2, 0.0))


def _check(
    kind: TransitionKind, sigma: float, sigma_next: float, eta: float, score_correction: bool
) -> None:
    if not 1 >= sigma > sigma_next >= 0:
        raise ValueError(f"need 1 >= sigma > sigma_next >= 0, got {sigma} and {sigma_next}")
    if eta < 0:
        raise ValueError(f"eta must be >= 0, got {eta}")
    if kind == "cps" and eta > 1:
        raise ValueError(f"eta of cps is a share of a right angle and must be <= 1, got {eta}")
    if kind in ("cps", "bridge") and not score_correction:
        raise ValueError(f"{kind} has no score term to leave out; set score_correction to true")
