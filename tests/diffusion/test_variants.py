"""Where papers and releases differ: which variance, which drift, which KL; goldens of each."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import (
    TransitionKind,
    Variant,
    mean_slope,
    released_kl_std,
    step_stds,
    step_variance,
    transition,
)
from mmrl.ops import gaussian

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = json.loads((FOLDER / "diffusion_steps.json").read_text())
STEPS = {case["id"]: case for case in json.loads((FOLDER / "sde_steps.json").read_text())}
KINDS: dict[str, TransitionKind] = {
    "sage_grpo": "sage",
    "flow_grpo": "flow",
    "dance_grpo": "dance",
    "flow_sde": "flow",
    "dance_sde": "dance",
    "cps": "cps",
}
VARIANTS: list[Variant] = ["fixed", "paper", "released"]


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", GOLDEN["sde_steps"], ids=lambda c: f"{c['kind']}-{c['t']:.2f}")
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_and_slopes_equal_the_reference(case: dict, variant: Variant) -> None:
    """KL of two velocities apart by dv is J^2 / (2 S) dv^2: late steps weigh a hundredfold."""
    kind, levels = KINDS[case["kind"]], (case["t"], case["t_next"])
    given: dict = {
        "eta": case["noise_level"],
        "sigma_1": case.get("sigma_max", 0.9),
        "variant": variant,
    }
    found = transition(kind, tensor([case["x"]]), tensor([case["v"]]), *levels, **given)
    torch.testing.assert_close(found.mean[0], tensor(case["mean"]), rtol=1e-9, atol=1e-12)
    assert found.std.item() == pytest.approx(case["std"], rel=1e-9)
    slope = mean_slope(kind, *levels, **given)
    assert slope == pytest.approx(case["coef_v"], rel=1e-9)
    weight = slope**2 / (2 * found.std.item() ** 2)
    assert weight == pytest.approx(case["kl_weight_per_unit_dv2"], rel=1e-9)


def both_means(case: dict) -> list[torch.Tensor]:
    """Released means under the sampling velocity and under the one after an update."""
    kind, levels = KINDS[case["sde_type"]], (case["sigma"], case["sigma_next"])
    x = tensor(case["inputs"]["sample"]).view(case["shape"])
    velocities = case["inputs"]["velocity"], case["replay"]["velocity_b"]
    given: dict = {"eta": case["eta"], "sigma_1": case["sigma_1"], "variant": "released"}
    return [transition(kind, x, tensor(v).view(x.shape), *levels, **given).mean for v in velocities]


@pytest.mark.parametrize("name", GOLDEN["released_kl"])
def test_the_released_kl_equals_the_reference(name: str) -> None:
    """Its float32 means differ by 1e-7 each, which a KL of close means shows in its digits."""
    case, expected = STEPS[name], GOLDEN["released_kl"][name]
    kind, levels = KINDS[case["sde_type"]], (case["sigma"], case["sigma_next"])
    std = released_kl_std(kind, *levels, eta=case["eta"], sigma_1=case["sigma_1"])
    assert std**2 - 1e-6 == pytest.approx(expected["std_returned"] ** 2, rel=1e-4, abs=1e-10)
    here, there = both_means(case)
    torch.testing.assert_close(
        gaussian.kl(there, here, torch.tensor(std, dtype=torch.float64)),
        tensor(expected["kl_moving_repo"]),
        rtol=2e-3,
        atol=1e-9,
    )


def test_flow_grpos_released_kl_is_delta_times_the_true_one() -> None:
    """All others are the true one but for the 1e-6 in the variance."""
    x, v, w = torch.randn((3, 2, 5), generator=torch.Generator().manual_seed(0)).double()
    units: dict[TransitionKind, float] = {"flow": 0.25, "dance": 1.0, "sage": 1.0}
    for kind, unit in units.items():
        given: dict = {"eta": 0.5, "sigma_1": 0.9}
        laws = [transition(kind, x, u, 0.75, 0.5, **given) for u in (v, w)]
        std = torch.tensor(released_kl_std(kind, 0.75, 0.5, **given)).double()
        true = gaussian.kl(laws[0].mean, laws[1].mean, laws[0].std)
        found = gaussian.kl(laws[0].mean, laws[1].mean, std)
        torch.testing.assert_close(found, unit * true, rtol=1e-4, atol=0)


def test_the_true_std_does_not_follow_the_released_kl() -> None:
    """It is what multiplies the noise, in every variant."""
    x = torch.zeros(1, 1, dtype=torch.float64)
    for variant in VARIANTS:
        found = transition("flow", x, x, 0.5, 0.3, eta=0.5, sigma_1=0.9, variant=variant)
        assert found.std.item() == pytest.approx(0.5 * math.sqrt(0.2))


def test_without_score_correction_the_mean_is_the_ode_step_as_in_the_reference() -> None:
    case = GOLDEN["no_score_correction"]
    kind, levels = KINDS[case["sde_type"]], (case["sigma"], case["sigma_next"])
    x, v, z = (
        tensor(case["inputs"][k]).view(case["shape"]) for k in ("sample", "velocity", "noise")
    )
    given: dict = {"eta": case["eta"], "sigma_1": case["sigma_1"]}
    found = transition(kind, x, v, *levels, score_correction=False, **given)
    torch.testing.assert_close(
        found.mean.flatten(), tensor(case["ref64"]["mean"]), rtol=1e-12, atol=0
    )
    after = found.mean + found.std * z
    torch.testing.assert_close(
        after.flatten(), tensor(case["outputs"]["next_sample"]), rtol=2e-5, atol=1e-5
    )
    torch.testing.assert_close(
        gaussian.log_prob(after, found.mean, found.std),
        tensor(case["ref64"]["log_prob"]),
        rtol=0,
        atol=2e-4,
    )
    slope = mean_slope(kind, *levels, score_correction=False, **given)
    assert slope == pytest.approx(levels[1] - levels[0], rel=1e-12)


@pytest.mark.parametrize("kind", ["flow", "dance", "sage"])
def test_the_score_correction_moves_the_mean_and_nothing_else(kind: TransitionKind) -> None:
    """By -S / (2 sigma) eps; where the state has no noise estimate the two agree."""
    x, v = tensor([[0.7]]), tensor([[-0.4]])
    given: dict = {"eta": 0.5, "sigma_1": 0.9}
    with_it = transition(kind, x, v, 0.5, 0.3, **given)
    without = transition(kind, x, v, 0.5, 0.3, score_correction=False, **given)
    assert without.mean.item() == pytest.approx(0.78, abs=1e-12)
    assert without.std.item() == with_it.std.item()
    shift = step_variance(kind, 0.5, 0.3, **given) / (2 * 0.5) * 0.5
    assert (without.mean - with_it.mean).item() == pytest.approx(shift, rel=1e-9)


@pytest.mark.parametrize("kind", ["cps", "bridge"])
def test_a_recombination_has_no_score_to_leave_out(kind: TransitionKind) -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=f"{kind} has no score term"):
        transition(kind, x, x, 0.5, 0.3, eta=0.5, sigma_1=0.9, score_correction=False)


def sage(sigma: float, sigma_next: float, variant: Variant) -> float:
    return step_variance("sage", sigma, sigma_next, eta=0.5, sigma_1=0.99, variant=variant)


def test_the_papers_sage_has_no_variance_at_pure_noise() -> None:
    with pytest.raises(ValueError, match=r"infinite at sigma 1; .* or use variant 'fixed'"):
        sage(1.0, 0.99, "paper")


def test_only_the_release_clamps_levels_below_1() -> None:
    """0.997 stands in for 0.999 there; the fixed variant treats 1 alone, and is finite."""
    assert sage(0.999, 0.99, "fixed") == sage(0.999, 0.99, "paper")
    assert sage(0.999, 0.99, "paper") == pytest.approx(0.25 * (math.log(10) - 0.009))
    assert sage(0.999, 0.99, "released") == pytest.approx(0.25 * (math.log(10 / 3) - 0.009))
    assert sage(1.0, 0.99, "released") == sage(1.0, 0.99, "fixed")
    assert sage(0.9, 0.8, "paper") == sage(0.9, 0.8, "fixed") == sage(0.9, 0.8, "released")


def test_the_release_breaks_at_68_steps_of_shift_5_and_not_before() -> None:
    assert step_stds("sage", shifted_sigmas(67, 5.0), eta=0.5, variant="released")[0] > 0
    with pytest.raises(ValueError, match="negative"):
        step_stds("sage", shifted_sigmas(68, 5.0), eta=0.5, variant="released")


def test_the_papers_equalizer_counts_stds_alone() -> None:
    """c_i = std_i / std of the lower median of 1 / std, and the first step, infinite, keeps 1."""
    sigmas = shifted_sigmas(6, 5.0)
    stds = step_stds("sage", sigmas, eta=0.5)[1:]
    found = equalizer_scales("sage", sigmas, eta=0.5, variant="paper")
    assert found[0] == 1
    torch.testing.assert_close(found[1:], stds / stds.median())
