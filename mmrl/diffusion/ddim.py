"""Mean and std of one DDIM(eta) step, for models trained on a discrete beta schedule.

x = sqrt(a) x0 + sqrt(1 - a) eps with a = alpha_bar of the timestep; sampling raises a towards 1.
The velocity of `v_prediction` is sqrt(a) eps - sqrt(1 - a) x0 (arXiv:2202.00512, appendix D).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import Transition

Prediction = Literal["epsilon", "v_prediction", "sample"]
BetaSchedule = Literal["linear", "scaled_linear"]


def alpha_bars(
    beta_schedule: BetaSchedule,
    *,
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
    snr_shift_scale: float = 1.0,
    rescale_betas_zero_snr: bool = False,
) -> Float[Tensor, " T"]:
    """a_t = prod_{s <= t} (1 - beta_s), float64, t = 0 nearest to the data; names as in diffusers.

    scaled_linear is linear in sqrt(beta). `snr_shift_scale` k divides the signal-to-noise ratio:
    a / (k + (1 - k) a), k = 3 in CogVideoX's scheduler. `rescale_betas_zero_snr` then shifts and
    scales sqrt(a): the last becomes 0, the first stays (arXiv:2305.08891, algorithm 1).
    """
    if num_train_timesteps < 2:
        raise ValueError(f"num_train_timesteps must be >= 2, got {num_train_timesteps}")
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")
    if snr_shift_scale <= 0:
        raise ValueError(f"snr_shift_scale must be > 0, got {snr_shift_scale}")
    power = 1.0 if beta_schedule == "linear" else 0.5
    ends = beta_start**power, beta_end**power
    betas = torch.linspace(*ends, num_train_timesteps, dtype=torch.float64) ** (1 / power)
    found = (1 - betas).cumprod(0)
    found = found / (snr_shift_scale + (1 - snr_shift_scale) * found)
    if rescale_betas_zero_snr:
        root = found.sqrt()
        found = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return found


def ddim_transition(
    x: Float[Tensor, "B ..."],
    output: Float[Tensor, "B ..."],
    alpha_bar: float,
    alpha_bar_next: float,
    *,
    eta: float,
    prediction: Prediction,
) -> Transition:
    """x' ~ N(sqrt(a') x0 + sqrt(1 - a' - std^2) eps, std^2) (DDIM, arXiv:2010.02502, eq. 12).

    a' is `alpha_bar_next`. eta 0 is the deterministic DDIM step, eta 1 ancestral DDPM sampling.
    `output` is the network's, as `prediction` says; the estimate of the data is not clipped.
    """
    std = ddim_std(alpha_bar, alpha_bar_next, eta=eta)
    given = _estimates(alpha_bar, prediction)
    denoised = given.data_x * x + given.data_output * output
    noise = given.noise_x * x + given.noise_output * output
    mean = math.sqrt(alpha_bar_next) * denoised + _kept_noise(alpha_bar_next, std) * noise
    return Transition(mean, torch.tensor(std, dtype=x.dtype, device=x.device), denoised)


def ddim_std(alpha_bar: float, alpha_bar_next: float, *, eta: float) -> float:
    """eta sqrt((1 - a') / (1 - a) (1 - a / a')) (arXiv:2010.02502, eq. 16)."""
    if not 0 <= alpha_bar < alpha_bar_next <= 1:
        raise ValueError(
            f"need 0 <= alpha_bar < alpha_bar_next <= 1, got {alpha_bar} and {alpha_bar_next}"
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta of ddim must be 0 .. 1, 1 being ancestral sampling, got {eta}")
    share = (1 - alpha_bar_next) / (1 - alpha_bar)
    return eta * math.sqrt(share * (1 - alpha_bar / alpha_bar_next))


def ddim_stds(alpha_bars: Float[Tensor, " N1"], *, eta: float) -> Float[Tensor, " N"]:
    """std of every step along `alpha_bars`, float64."""
    found = [ddim_std(level, after, eta=eta) for level, after in pairwise(alpha_bars.tolist())]
    return torch.tensor(found, dtype=torch.float64)


def ddim_mean_slope(
    alpha_bar: float, alpha_bar_next: float, *, eta: float, prediction: Prediction
) -> float:
    """d mean / d output, one number for all elements."""
    std = ddim_std(alpha_bar, alpha_bar_next, eta=eta)
    given = _estimates(alpha_bar, prediction)
    kept = _kept_noise(alpha_bar_next, std)
    return math.sqrt(alpha_bar_next) * given.data_output + kept * given.noise_output


class _Estimates(NamedTuple):
    """x0 = data_x x + data_output output, eps = noise_x x + noise_output output."""

    data_x: float
    data_output: float
    noise_x: float
    noise_output: float


def _estimates(alpha_bar: float, prediction: Prediction) -> _Estimates:
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    match prediction:
        case "v_prediction":
            return _Estimates(signal, -noise, noise, signal)
        case "sample":
            return _Estimates(0.0, 1.0, 1 / noise, -signal / noise)
        case "epsilon":
            if alpha_bar == 0:
                raise ValueError(
                    "at alpha_bar 0 the state is pure noise and predicting it says nothing of the "
                    "data; use prediction 'v_prediction' or a schedule without zero terminal SNR"
                )
            return _Estimates(1 / signal, -noise / signal, 0.0, 1.0)


def _kept_noise(alpha_bar_next: float, std: float) -> float:
    return math.sqrt(max(1 - alpha_bar_next - std**2, 0.0))
