"""One-step samplers: reference numbers, limits, marginals. float64."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, mean_slope, step_variance, transition
from mmrl.ops.gaussian import log_prob

GOLDEN = Path(__file__).parent.parent / "golden"
STEPS = json.loads((GOLDEN / "sde_steps.json").read_text())
AUX = json.loads((GOLDEN / "sage_aux.json").read_text())
KINDS: dict[str, TransitionKind] = {
    "sage_grpo": "sage",
    "flow_grpo": "flow",
    "dance_grpo": "dance",
    "cps": "cps",
}
EULER: list[TransitionKind] = ["flow", "dance", "sage"]
STOCHASTIC: list[TransitionKind] = [*EULER, "cps", "bridge"]


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", STEPS, ids=[case["id"] for case in STEPS])
def test_released_steps_equal_the_reference(case: dict) -> None:
    x, v, noise = (
        tensor(case["inputs"][key]).view(case["shape"]) for key in ("sample", "velocity", "noise")
    )
    given = {"eta": case["eta"], "sigma_1": case["sigma_1"], "variant": "released"}
    found = transition(KINDS[case["sde_type"]], x, v, case["sigma"], case["sigma_next"], **given)
    expected = case["ref64"]
    torch.testing.assert_close(
        found.mean.flatten(), tensor(expected["mean"]), rtol=1e-9, atol=1e-12
    )
    assert found.std.item() ** 2 == pytest.approx(expected["noise_var"], rel=1e-9, abs=1e-15)
    torch.testing.assert_close(
        found.denoised.flatten(), tensor(case["outputs"]["pred_x0"]), rtol=2e-5, atol=1e-5
    )
    drawn = found.mean + found.std * noise
    torch.testing.assert_close(
        drawn.flatten(), tensor(case["outputs"]["next_sample"]), rtol=2e-5, atol=1e-5
    )
    if case["sde_type"] != "cps":
        torch.testing.assert_close(
            log_prob(drawn, found.mean, found.std),
            tensor(expected["log_prob"]),
            rtol=0,
            atol=2e-4,
        )


WORKED = {
    "sage": (0.1847107446, 0.7629409704, -0.2170590296),
    "flow": (0.2236067977, 0.7550000000, -0.2250000000),
    "dance": (0.2236067977, 0.7550000000, -0.2250000000),
    "cps": (0.2121320344, 0.7360660172, -0.2439339828),
    "bridge": (0.1310740095, 0.7649255388, -0.2150744612),
}


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_worked_step_by_hand(kind: TransitionKind) -> None:
    """x = 0.7, v = -0.4, sigma 0.5 -> 0.3, eta 0.5."""
    given = {"eta": 0.5, "sigma_1": 0.9}
    found = transition(kind, tensor([[0.7]]), tensor([[-0.4]]), 0.5, 0.3, **given)
    std, mean, slope = WORKED[kind]
    assert found.denoised.item() == pytest.approx(0.9, abs=1e-12)
    assert found.std.item() == pytest.approx(std, abs=1e-9)
    assert found.mean.item() == pytest.approx(mean, abs=1e-9)
    assert mean_slope(kind, 0.5, 0.3, **given) == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("kind", STOCHASTIC)
@pytest.mark.parametrize("step", range(20))
def test_eta_0_is_the_euler_ode_step(kind: TransitionKind, step: int) -> None:
    sigmas = shifted_sigmas(20, 5.0).tolist()
    generator = torch.Generator().manual_seed(step)
    x, v = torch.randn((2, 3, 5), generator=generator, dtype=torch.float64)
    low, high = sigmas[step + 1], sigmas[step]
    found = transition(kind, x, v, high, low, eta=0.0, sigma_1=sigmas[1])
    torch.testing.assert_close(found.mean, x - (high - low) * v, rtol=0, atol=1e-12)
    assert found.std == 0


@pytest.mark.parametrize("num_steps", [4, 20, 200])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_flow_grpo_first_step_has_variance_eta_squared(num_steps: int, shift: float) -> None:
    sigmas = shifted_sigmas(num_steps, shift).tolist()
    s = step_variance("flow", 1.0, sigmas[1], eta=0.6, sigma_1=sigmas[1])
    assert s == pytest.approx(0.36, rel=1e-12)


def test_sage_variance_lies_between_the_two_ends_and_telescopes() -> None:
    sigmas = shifted_sigmas(20, 5.0).tolist()
    for high, low in pairwise(sigmas[1:-1]):
        s = step_variance("sage", high, low, eta=0.5, sigma_1=sigmas[1])
        flow = step_variance("flow", high, low, eta=0.5, sigma_1=sigmas[1])
        assert 0.25 * low / (1 - low) * (high - low) < s < flow
        middle = 0.3 * high + 0.7 * low
        parts = [
            step_variance("sage", a, b, eta=0.5, sigma_1=sigmas[1])
            for a, b in ((high, middle), (middle, low))
        ]
        assert sum(parts) == pytest.approx(s, rel=1e-12)


@pytest.mark.parametrize("num_steps", [2, 20, 68, 300, 1000])
def test_fixed_sage_is_finite_and_positive_for_any_step_count(num_steps: int) -> None:
    sigmas = shifted_sigmas(num_steps, 5.0).tolist()
    for high, low in pairwise(sigmas):
        s = step_variance("sage", high, low, eta=0.5, sigma_1=sigmas[1])
        assert math.isfinite(s) and s > 0


def test_released_sage_with_many_steps_is_a_clear_error_instead_of_nan() -> None:
    sigmas = shifted_sigmas(68, 5.0).tolist()
    with pytest.raises(ValueError, match=r"negative .* fewer steps or variant 'fixed'"):
        step_variance("sage", 1.0, sigmas[1], eta=0.5, sigma_1=sigmas[1], variant="released")


@pytest.mark.parametrize("kind", STOCHASTIC)
@pytest.mark.parametrize("step", [0, 1, 7, 14])
def test_gradients_are_equal_after_scaling(kind: TransitionKind, step: int) -> None:
    """RMS of d(D log_prob)/dv is (|J| / std) RMS(z), and the scale brings it to the median's."""
    sigmas = shifted_sigmas(16, 5.0)
    levels = sigmas.tolist()
    generator = torch.Generator().manual_seed(3)
    x, v, z = torch.randn((3, 1, 64), generator=generator, dtype=torch.float64)
    v.requires_grad_(True)
    given = {"eta": 0.5, "sigma_1": levels[1]}
    found = transition(kind, x, v, levels[step], levels[step + 1], **given)
    after = (found.mean + found.std * z).detach()
    (64 * log_prob(after, found.mean, found.std)).sum().backward()
    assert v.grad is not None
    measured = (v.grad.square().mean().sqrt() / z.square().mean().sqrt()).item()
    scales = equalizer_scales(kind, sigmas, eta=0.5)
    norms = [
        abs(mean_slope(kind, a, b, **given)) / math.sqrt(step_variance(kind, a, b, **given))
        for a, b in pairwise(levels[:-1])
    ]
    assert measured == pytest.approx(norms[step], rel=1e-10)
    assert measured * scales[step].item() == pytest.approx(sorted(norms)[7], rel=1e-10)


@pytest.mark.parametrize("case", AUX["equalizer"], ids=lambda case: case["sde_type"])
def test_released_scales_equal_the_reference(case: dict) -> None:
    sigmas = shifted_sigmas(case["num_steps"], case["shift"])
    found = equalizer_scales(KINDS[case["sde_type"]], sigmas, eta=case["eta"], variant="released")
    torch.testing.assert_close(found, tensor(case["scale"]), rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("case", AUX["schedules"], ids=lambda case: str(case["shift"]))
def test_schedules_equal_the_reference(case: dict) -> None:
    found = shifted_sigmas(case["num_steps"], case["shift"])
    torch.testing.assert_close(found, tensor(case["sigmas"]), rtol=0, atol=1e-7)


def final_variance(
    kind: TransitionKind, num_steps: int, shift: float, eta: float, std: float, last_ode: bool
) -> float:
    """Variance of the end of the chain for Gaussian data, by exact linear propagation.

    For data N(1, std^2) the velocity is linear in x, so each transition is x' = a x + b + noise.
    """
    sigmas = shifted_sigmas(num_steps, shift).tolist()
    variance = 1.0
    for high, low in pairwise(sigmas):
        total = high**2 + (1 - high) ** 2 * std**2
        slope = (high - (1 - high) * std**2) / total
        chosen: TransitionKind = "ode" if last_ode and low == 0 else kind
        x = tensor([[0.0], [1.0]])
        v = slope * x
        given = {"eta": eta, "sigma_1": sigmas[1], "variant": "released"}
        found = transition(chosen, x, v, high, low, **given)
        gain = (found.mean[1] - found.mean[0]).item()
        variance = gain**2 * variance + found.std.item() ** 2
    return variance


ROWS = [row for row in AUX["gaussian_marginals"]["rows"] if row["kind"] in (*EULER, "ode", "cps")]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['kind']}-{row['num_steps']}-{row['data_std']}"
)
def test_gaussian_marginals_equal_the_analytic_reference(row: dict) -> None:
    given = (row["kind"], row["num_steps"], row["shift"], row["eta"], row["data_std"])
    assert final_variance(*given, last_ode=False) == pytest.approx(row["final_var"], abs=1e-9)
    expected = row["final_var_last_step_ode"]
    assert final_variance(*given, last_ode=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", ["flow", "dance", "bridge"])
def test_many_steps_reach_the_law_of_the_data(kind: TransitionKind) -> None:
    found = final_variance(kind, 1000, 5.0, 0.5, 0.25, last_ode=True) ** 0.5
    assert found == pytest.approx(0.25, rel=0.02)


def test_cps_does_not_reach_the_law_of_the_data_however_many_steps() -> None:
    found = final_variance("cps", 4000, 5.0, 0.5, 1.0, last_ode=False) ** 0.5
    assert found == pytest.approx(0.922, abs=2e-3)


BRIDGES = [row for row in AUX["bridge_step"]["rows"] if row["kind"] == "bridge_flow"]


@pytest.mark.parametrize("row", BRIDGES, ids=lambda row: f"{row['sigma']:.3f}-{row['eta']}")
def test_bridge_step_equals_the_closed_form(row: dict) -> None:
    x0, eps = tensor([[1.0]]), tensor([[0.0]])
    for denoised, noise, expected in ((x0, eps, "coef_x0"), (eps, x0, "coef_eps")):
        x = (1 - row["sigma"]) * denoised + row["sigma"] * noise
        found = transition(
            "bridge",
            x,
            noise - denoised,
            row["sigma"],
            row["sigma_next"],
            eta=row["eta"],
            sigma_1=0.99,
        )
        assert found.mean.item() == pytest.approx(row[expected], abs=1e-12)
        assert found.std.item() == pytest.approx(row["std"], abs=1e-12)


def test_a_step_that_goes_up_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma > sigma_next"):
        transition("ode", torch.zeros(1, 1), torch.zeros(1, 1), 0.3, 0.5, eta=0.5, sigma_1=0.9)
