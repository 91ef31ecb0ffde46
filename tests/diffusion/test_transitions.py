"""One-step samplers: reference numbers, hand numbers, limits. float64."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, mean_slope, step_variance, transition
from mmrl.ops import gaussian

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


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def released(case: dict, velocity: str = "velocity"):
    values = case["replay"][velocity] if velocity == "velocity_b" else case["inputs"][velocity]
    x, v = (tensor(found).view(case["shape"]) for found in (case["inputs"]["sample"], values))
    given: dict = {"eta": case["eta"], "sigma_1": case["sigma_1"], "variant": "released"}
    kind = KINDS[case["sde_type"]]
    return transition(kind, x, v, case["sigma"], case["sigma_next"], **given)


@pytest.mark.parametrize("case", STEPS, ids=[case["id"] for case in STEPS])
def test_released_steps_equal_the_reference(case: dict) -> None:
    found, expected = released(case), case["ref64"]
    torch.testing.assert_close(
        found.mean.flatten(), tensor(expected["mean"]), rtol=1e-12, atol=1e-12
    )
    assert found.std.item() ** 2 == pytest.approx(expected["noise_var"], rel=1e-12, abs=1e-15)
    torch.testing.assert_close(
        found.denoised.flatten(), tensor(case["outputs"]["pred_x0"]), rtol=2e-5, atol=1e-5
    )
    noise = tensor(case["inputs"]["noise"]).view(case["shape"])
    if case["mode"] == "ode":
        x, v = (tensor(case["inputs"][k]).view(case["shape"]) for k in ("sample", "velocity"))
        levels = case["sigma"], case["sigma_next"]
        drawn = transition("ode", x, v, *levels, eta=0.0, sigma_1=case["sigma_1"]).mean
    else:
        drawn = found.mean + found.std * noise
    torch.testing.assert_close(
        drawn.flatten(), tensor(case["outputs"]["next_sample"]), rtol=2e-5, atol=1e-5
    )


REPLAYS = [case for case in STEPS if "replay" in case and case["sde_type"] != "cps"]


@pytest.mark.parametrize("case", REPLAYS, ids=[case["id"] for case in REPLAYS])
def test_replayed_log_probs_ratios_and_kls_equal_the_reference(case: dict) -> None:
    """The float32 reference divides by a rounded variance: 2e-4 of a log-prob is its own error."""
    at, moved, expected = released(case), released(case, "velocity_b"), case["replay"]
    after = tensor(case["outputs"]["next_sample"]).view(case["shape"])
    here = gaussian.log_prob(after, at.mean, at.std)
    there = gaussian.log_prob(after, moved.mean, moved.std)
    torch.testing.assert_close(here, tensor(case["ref64"]["log_prob"]), rtol=0, atol=2e-4)
    torch.testing.assert_close(there, tensor(expected["log_prob_b"]), rtol=0, atol=2e-4)
    torch.testing.assert_close((there - here).exp(), tensor(expected["ratio_b"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        gaussian.kl(moved.mean, at.mean, at.std), tensor(expected["kl_exact"]), rtol=2e-3, atol=1e-9
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
    found = transition(kind, tensor([[0.7]]), tensor([[-0.4]]), 0.5, 0.3, eta=0.5, sigma_1=0.9)
    std, mean, slope = WORKED[kind]
    assert found.denoised.item() == pytest.approx(0.9, abs=1e-12)
    assert found.std.item() == pytest.approx(std, abs=1e-9)
    assert found.mean.item() == pytest.approx(mean, abs=1e-9)
    assert mean_slope(kind, 0.5, 0.3, eta=0.5, sigma_1=0.9) == pytest.approx(slope, abs=1e-9)


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


def test_sage_variances_of_any_cut_have_one_sum_and_flows_do_not() -> None:
    """sum S = eta^2 [ln((1 - b) / (1 - a)) - (a - b)] from level a to b, however many steps."""
    totals = {}
    for kind in ("sage", "flow"):
        for count in (3, 50):
            levels = [0.9 - 0.7 * step / count for step in range(count + 1)]
            given: dict = {"eta": 0.5, "sigma_1": 0.99}
            totals[kind, count] = sum(step_variance(kind, *p, **given) for p in pairwise(levels))
    exact = 0.25 * (math.log(0.8 / 0.1) - 0.7)
    assert totals["sage", 3] == pytest.approx(exact, rel=1e-12)
    assert totals["sage", 50] == pytest.approx(exact, rel=1e-12)
    assert totals["flow", 3] > 1.5 * exact
    assert exact < totals["flow", 50] < 1.05 * exact


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


TABLE = {
    0: (0.5555, 0.5000, 0.0510, 0.6997, 0.9896),
    1: (0.4256, 0.5186, 0.0532, 0.6917, 0.4038),
    5: (0.2330, 0.2483, 0.0641, 0.6513, 0.2273),
    15: (0.1585, 0.1701, 0.1318, 0.3928, 0.1463),
    19: (0.0795, 0.1171, 0.2282, 0.0000, 0.0000),
}


@pytest.mark.parametrize("step", TABLE)
def test_stds_of_a_schedule_of_20_steps(step: int) -> None:
    """Shift 5, eta 0.5. SAGE's first step is noisier than Flow-GRPO's, all later ones less."""
    sigmas = shifted_sigmas(20, 5.0).tolist()
    kinds: list[TransitionKind] = ["sage", "flow", "dance", "cps", "bridge"]
    levels = sigmas[step], sigmas[step + 1]
    found = [step_variance(k, *levels, eta=0.5, sigma_1=sigmas[1]) ** 0.5 for k in kinds]
    assert found == pytest.approx(TABLE[step], abs=5e-5)


@pytest.mark.parametrize("step", range(20))
def test_the_euler_means_are_what_the_papers_write(step: int) -> None:
    """Flow-GRPO's two brackets, and x - delta v + S / 2 score for the other two."""
    sigmas = shifted_sigmas(20, 5.0).tolist()
    high, low = sigmas[step], sigmas[step + 1]
    generator = torch.Generator().manual_seed(step)
    x, v = torch.randn((2, 3, 5), generator=generator, dtype=torch.float64)
    given: dict = {"eta": 0.7, "sigma_1": sigmas[1]}
    dt = low - high
    g2 = 0.49 * high / (1 - (sigmas[1] if high == 1 else high))
    bracket_x, bracket_v = 1 + g2 / (2 * high) * dt, 1 + g2 * (1 - high) / (2 * high)
    flow = transition("flow", x, v, high, low, **given)
    torch.testing.assert_close(flow.mean, x * bracket_x + v * bracket_v * dt, rtol=1e-12, atol=0)
    for kind in ("dance", "sage"):
        score = -(x - (1 - high) * (x - high * v)) / high**2
        s = step_variance(kind, high, low, **given)
        found = transition(kind, x, v, high, low, **given)
        torch.testing.assert_close(found.mean, x + dt * v + s / 2 * score, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_draws_have_the_mean_the_variance_and_the_entropy_of_the_step(kind: TransitionKind) -> None:
    """Within 4 standard errors; the mean log-prob is -1/2 - ln std - ln(2 pi) / 2."""
    count, generator = 100_000, torch.Generator().manual_seed(0)
    x, v = tensor([[0.7]]).expand(count, 1), tensor([[-0.4]]).expand(count, 1)
    found = transition(kind, x, v, 0.5, 0.3, eta=0.5, sigma_1=0.9)
    z = torch.randn((count, 1), generator=generator, dtype=torch.float64)
    after, std = found.mean + found.std * z, found.std.item()
    assert after.mean().item() == pytest.approx(found.mean[0].item(), abs=4 * std / count**0.5)
    assert after.var().item() == pytest.approx(std**2, rel=4 * (2 / count) ** 0.5)
    entropy = 0.5 + math.log(std) + 0.5 * math.log(2 * math.pi)
    log_probs = gaussian.log_prob(after, found.mean, found.std)
    assert log_probs.mean().item() == pytest.approx(-entropy, abs=4 * (0.5 / count) ** 0.5)


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


def noise_share(kind: TransitionKind, high: float, low: float, eta: float) -> float:
    """r in mean = (1 - sigma') x0 + sigma' r eps."""
    x, v = tensor([[high]]), tensor([[1.0]])
    return transition(kind, x, v, high, low, eta=eta, sigma_1=0.99).mean.item() / low


def test_the_bridge_composes_and_is_cps_where_r_is_constant() -> None:
    """r(a -> c) = r(a -> b) r(b -> c); cps has r = cos(eta pi / 2) at every step."""
    whole = noise_share("bridge", 0.8, 0.3, 0.6)
    parts = noise_share("bridge", 0.8, 0.55, 0.6) * noise_share("bridge", 0.55, 0.3, 0.6)
    assert whole == pytest.approx(parts, rel=1e-12)
    for high, low in ((0.8, 0.3), (0.55, 0.5)):
        assert noise_share("cps", high, low, 0.6) == pytest.approx(math.cos(0.3 * math.pi))
        std = step_variance("cps", high, low, eta=0.6, sigma_1=0.99) ** 0.5
        assert std == pytest.approx(low * math.sin(0.3 * math.pi), rel=1e-12)


def test_the_bridge_of_a_short_step_is_flows_step_up_to_delta_squared() -> None:
    """Ten times shorter, a hundred times nearer, in mean and variance."""
    x, v = tensor([[0.7]]), tensor([[-0.4]])
    gaps = []
    for delta in (1e-2, 1e-3):
        kinds: list[TransitionKind] = ["bridge", "flow"]
        pair = [transition(k, x, v, 0.5, 0.5 - delta, eta=0.5, sigma_1=0.99) for k in kinds]
        means, variances = ([p.mean.item() for p in pair], [p.std.item() ** 2 for p in pair])
        gaps.append((abs(means[0] - means[1]), abs(variances[0] - variances[1])))
    assert gaps[0][0] / gaps[1][0] == pytest.approx(100, rel=0.1)
    assert gaps[0][1] / gaps[1][1] == pytest.approx(100, rel=0.1)


def test_a_step_that_goes_up_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma > sigma_next"):
        transition("ode", torch.zeros(1, 1), torch.zeros(1, 1), 0.3, 0.5, eta=0.5, sigma_1=0.9)


def test_an_angle_above_a_right_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eta of cps .* <= 1, got 1\.2"):
        transition("cps", torch.zeros(1, 1), torch.zeros(1, 1), 0.5, 0.3, eta=1.2, sigma_1=0.9)
