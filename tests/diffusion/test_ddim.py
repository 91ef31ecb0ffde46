"""DDIM(eta) steps: goldens, diffusers' schedulers, DDPM's posterior, zero terminal SNR. float64."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler

from mmrl.diffusion.ddim import (
    Prediction,
    alpha_bars,
    ddim_mean_slope,
    ddim_std,
    ddim_stds,
    ddim_transition,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/diffusion_steps.json").read_text())
PREDICTIONS: list[Prediction] = ["epsilon", "v_prediction", "sample"]
STABLE_DIFFUSION: dict = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
DDPM: dict = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("case", GOLDEN["ddim_steps"], ids=lambda c: f"{c['t']}-{c['eta']}")
def test_steps_equal_the_reference(case: dict) -> None:
    found = ddim_transition(
        tensor([case["x"]]),
        tensor([case["eps_pred"]]),
        case["alpha_bar"],
        case["alpha_bar_prev"],
        eta=case["eta"],
        prediction="epsilon",
    )
    torch.testing.assert_close(found.mean[0], tensor(case["mean"]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.denoised[0], tensor(case["x0_pred"]), rtol=1e-9, atol=1e-12)
    assert found.std.item() == pytest.approx(case["std"], rel=1e-9)


@pytest.mark.parametrize("given", [STABLE_DIFFUSION, DDPM], ids=["scaled_linear", "linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_schedules_equal_those_of_diffusers(given: dict, zero_snr: bool, shift: float) -> None:
    """CogVideoX' scheduler for every shift, Stable Diffusion's for none."""
    found = alpha_bars(
        num_train_timesteps=1000, snr_shift_scale=shift, rescale_betas_zero_snr=zero_snr, **given
    )
    theirs = CogVideoXDDIMScheduler(
        snr_shift_scale=shift, rescale_betas_zero_snr=zero_snr, **given
    ).alphas_cumprod.double()
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-6)
    if shift == 1:
        theirs = DDIMScheduler(rescale_betas_zero_snr=zero_snr, **given).alphas_cumprod.double()
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-6)
    assert (found[-1].item() == 0) is zero_snr
    assert (found.diff() < 0).all()


def walk(scheduler, output, *, eta: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(our x', their x') of every step of a walk along their states, in float64 on both sides."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(20)
    x, pairs = normal(0, 2, 3, 4), []
    for step, t in enumerate(scheduler.timesteps.tolist()):
        before = t - 1000 // 20
        level = scheduler.alphas_cumprod[t].item()
        after = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
        z = normal(100 + step, 2, 3, 4)
        found = ddim_transition(
            x,
            output(x, step),
            level,
            after.item(),
            eta=eta,
            prediction=scheduler.config.prediction_type,
        )
        x = scheduler.step(output(x, step), t, x, eta=eta, variance_noise=z).prev_sample
        pairs.append((found.mean + found.std * z, x))
    return pairs


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("to_one", [False, True])
def test_steps_equal_stable_diffusions_scheduler(
    prediction: Prediction, eta: float, to_one: bool
) -> None:
    """Its last step goes to final_alpha_cumprod, which is 1 or the first entry of the schedule."""
    scheduler = DDIMScheduler(
        clip_sample=False,
        set_alpha_to_one=to_one,
        steps_offset=1,
        prediction_type=prediction,
        **STABLE_DIFFUSION,
    )
    for found, expected in walk(scheduler, lambda x, step: torch.sin(x + step), eta=eta):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS[1:])
def test_deterministic_steps_equal_cogvideox_scheduler_from_pure_noise_on(
    prediction: Prediction,
) -> None:
    """Trailing spacing starts at alpha_bar 0, and the scheduler divides by 1 - alpha_bar only."""
    scheduler = CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type=prediction
    )
    pairs = walk(scheduler, lambda x, step: torch.sin(x + step), eta=0.0)
    assert scheduler.alphas_cumprod[scheduler.timesteps[0]] == 0
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_eta_1_is_ddpms_posterior() -> None:
    """Ho et al., arXiv:2006.11239, eq. 7, between neighbouring timesteps."""
    levels = alpha_bars(num_train_timesteps=1000, **DDPM).tolist()
    x, eps = normal(0, 2, 5), normal(1, 2, 5)
    for t in (1, 10, 500, 999):
        high, low = levels[t], levels[t - 1]
        alpha = high / low
        found = ddim_transition(x, eps, high, low, eta=1.0, prediction="epsilon")
        x0 = (x - math.sqrt(1 - high) * eps) / math.sqrt(high)
        mean = math.sqrt(low) * (1 - alpha) / (1 - high) * x0
        mean = mean + math.sqrt(alpha) * (1 - low) / (1 - high) * x
        torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-9)
        variance = (1 - low) / (1 - high) * (1 - alpha)
        assert found.std.item() ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("high", "low"), [(0.1, 0.4), (0.9, 0.99), (0.5, 1.0)])
def test_three_ways_to_say_one_thing_give_one_step(eta: float, high: float, low: float) -> None:
    x0, eps = normal(0, 2, 5), normal(1, 2, 5)
    signal, noise = math.sqrt(high), math.sqrt(1 - high)
    outputs = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}
    for prediction in PREDICTIONS:
        found = ddim_transition(
            signal * x0 + noise * eps,
            outputs[prediction],
            high,
            low,
            eta=eta,
            prediction=prediction,
        )
        torch.testing.assert_close(found.denoised, x0)
        kept = math.sqrt(1 - low - found.std.item() ** 2)
        torch.testing.assert_close(found.mean, math.sqrt(low) * x0 + kept * eps)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_the_slope_of_the_mean_is_autograds(prediction: Prediction, eta: float) -> None:
    for high, low in ((0.006, 0.007), (0.3, 0.5), (0.97, 1.0)):
        output = normal(1, 1, 5).requires_grad_(True)
        found = ddim_transition(normal(0, 1, 5), output, high, low, eta=eta, prediction=prediction)
        found.mean.sum().backward()
        slope = ddim_mean_slope(high, low, eta=eta, prediction=prediction)
        assert output.grad is not None
        torch.testing.assert_close(output.grad, torch.full_like(output, slope))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_first_step_from_pure_noise_is_finite_with_a_velocity(eta: float) -> None:
    """v = -x0 at alpha_bar 0; ancestral sampling then draws all noise anew."""
    x, x0 = normal(0, 2, 5), normal(1, 2, 5)
    outputs: dict[Prediction, torch.Tensor] = {"v_prediction": -x0, "sample": x0}
    for prediction, output in outputs.items():
        found = ddim_transition(x, output, 0.0, 0.04, eta=eta, prediction=prediction)
        torch.testing.assert_close(found.denoised, x0)
        assert found.std.item() == pytest.approx(eta * math.sqrt(0.96))
        kept = math.sqrt(0.96 * (1 - eta**2))
        torch.testing.assert_close(found.mean, 0.2 * x0 + kept * x, rtol=1e-7, atol=1e-7)
        assert math.isfinite(ddim_mean_slope(0.0, 0.04, eta=eta, prediction=prediction))


def test_the_first_step_from_pure_noise_is_refused_with_a_noise_prediction() -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"pure noise .* use prediction 'v_prediction'"):
        ddim_transition(x, x, 0.0, 0.04, eta=0.0, prediction="epsilon")


def final_std(num_steps: int, eta: float, data_std: float) -> float:
    """Where the chain of data N(0, data_std^2) ends: x' = gain x + std z at every step."""
    schedule = alpha_bars(
        num_train_timesteps=100_000,
        beta_start=1e-7,
        beta_end=2e-4,
        beta_schedule="linear",
        rescale_betas_zero_snr=True,
    )
    picks = torch.linspace(len(schedule) - 1, 0, num_steps).round().long()
    variance = 1.0
    for high, low in pairwise([*schedule[picks].tolist(), 1.0]):
        total = high * data_std**2 + 1 - high
        x0_gain = math.sqrt(high) * data_std**2 / total
        v = (math.sqrt(high) - x0_gain) / math.sqrt(1 - high)
        found = ddim_transition(
            tensor([[1.0]]), tensor([[v]]), high, low, eta=eta, prediction="v_prediction"
        )
        variance = found.mean.item() ** 2 * variance + found.std.item() ** 2
    return math.sqrt(variance)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("data_std", [0.25, 1.0])
def test_many_steps_reach_the_law_of_the_data(eta: float, data_std: float) -> None:
    """Ten times more steps, about ten times nearer."""
    errors = [abs(final_std(n, eta, data_std) - data_std) for n in (50, 500)]
    assert errors[1] < 0.03 * data_std
    assert errors[1] < errors[0] / 5 or errors[1] < 1e-4


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_data_at_one_point_is_reached_in_any_number_of_steps(eta: float) -> None:
    assert final_std(3, eta, 0.0) == pytest.approx(0, abs=1e-12)


def test_stds_along_a_schedule_end_in_0() -> None:
    levels = tensor([0.1, 0.5, 1.0])
    assert ddim_stds(levels, eta=1.0).tolist() == [ddim_std(0.1, 0.5, eta=1.0), 0.0]
    assert ddim_std(0.1, 0.5, eta=1.0) == pytest.approx(math.sqrt(0.5 / 0.9 * 0.8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddim_std(0.5, 0.4, eta=1.0), "alpha_bar < alpha_bar_next"),
        (lambda: ddim_std(0.5, 0.5, eta=1.0), "alpha_bar < alpha_bar_next"),
        (lambda: ddim_std(0.5, 0.6, eta=1.1), r"eta of ddim must be 0 \.\. 1, .* got 1\.1"),
        (lambda: alpha_bars(num_train_timesteps=1, **DDPM), "num_train_timesteps must be >= 2"),
        (
            lambda: alpha_bars("linear", num_train_timesteps=9, beta_start=0.2, beta_end=0.1),
            "beta_start <= beta_end",
        ),
        (
            lambda: alpha_bars(num_train_timesteps=9, snr_shift_scale=0.0, **DDPM),
            "snr_shift_scale must be > 0",
        ),
    ],
)
def test_impossible_steps_and_schedules_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
