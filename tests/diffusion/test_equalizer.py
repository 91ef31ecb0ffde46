"""The timestep equalizer: gradients measured by autograd, reference scales, silent steps."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.ddim import Prediction, ddim_transition
from mmrl.diffusion.equalizer import ddim_equalizer_scales, equalizer_scales
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, transition
from mmrl.ops.gaussian import log_prob

CASES = json.loads((Path(__file__).parent.parent / "golden/sage_aux.json").read_text())["equalizer"]
STOCHASTIC: list[TransitionKind] = ["flow", "dance", "sage", "cps", "bridge"]


def measured_norm(kind: TransitionKind, sigmas: torch.Tensor, step: int) -> float:
    """RMS of d(D log_prob)/dv over elements, in units of the RMS of the noise drawn."""
    levels = sigmas.tolist()
    generator = torch.Generator().manual_seed(step)
    x, v, z = torch.randn((3, 1, 64), generator=generator, dtype=torch.float64)
    v.requires_grad_(True)
    found = transition(kind, x, v, levels[step], levels[step + 1], eta=0.5, sigma_1=levels[1])
    if found.std == 0:
        return math.nan
    after = (found.mean + found.std * z).detach()
    (64 * log_prob(after, found.mean, found.std)).sum().backward()
    assert v.grad is not None
    return (v.grad.square().mean().sqrt() / z.square().mean().sqrt()).item()


@pytest.mark.parametrize("kind", STOCHASTIC)
@pytest.mark.parametrize("num_steps", [16, 17])
def test_every_stochastic_step_has_the_median_gradient_after_scaling(
    kind: TransitionKind, num_steps: int
) -> None:
    """The median is the lower middle one; a step without noise is left out and keeps scale 1."""
    sigmas = shifted_sigmas(num_steps, 5.0)
    norms = [measured_norm(kind, sigmas, step) for step in range(num_steps)]
    live = sorted(norm for norm in norms if not math.isnan(norm))
    median = live[(len(live) - 1) // 2]
    for norm, scale in zip(norms, equalizer_scales(kind, sigmas, eta=0.5).tolist(), strict=True):
        assert scale == (1 if math.isnan(norm) else pytest.approx(median / norm, rel=1e-10))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['sde_type']}-{case['num_steps']}")
def test_released_scales_equal_the_reference(case: dict) -> None:
    kinds: dict[str, TransitionKind] = {"sage_grpo": "sage", "dance_grpo": "dance"}
    sigmas = shifted_sigmas(case["num_steps"], case["shift"])
    found = equalizer_scales(kinds[case["sde_type"]], sigmas, eta=case["eta"], variant="released")
    expected = torch.tensor(case["scale"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sage", (8.151, 5.298, 0.846, 0.055)), ("flow", (7.050, 5.980, 0.846, 0.073))],
)
def test_scales_of_a_schedule_of_20_steps(kind, expected: tuple, variant) -> None:
    """Shift 5, eta 0.5, steps 0, 1, 10 and 19: the equalizer spans more than two decades."""
    found = equalizer_scales(kind, shifted_sigmas(20, 5.0), eta=0.5, variant=variant)
    assert found[[0, 1, 10, 19]].tolist() == pytest.approx(expected, abs=6e-4)


def test_released_silences_the_last_step_of_cps() -> None:
    """Its std of 0 becomes 1e-12, so the scale is the median over 2e11."""
    sigmas = shifted_sigmas(20, 5.0)
    found = equalizer_scales("cps", sigmas, eta=0.5, variant="released")
    assert found[0].item() == pytest.approx(6.9, abs=0.05)
    assert 0 < found[-1].item() < 1e-9


def test_a_schedule_without_noise_has_nothing_to_equalize() -> None:
    assert equalizer_scales("sage", shifted_sigmas(4, 3.0), eta=0.0).tolist() == [1] * 4


def test_released_sage_with_many_steps_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        equalizer_scales("sage", shifted_sigmas(68, 5.0), eta=0.5, variant="released")


def test_scales_fall_as_noise_falls() -> None:
    """Gradients of a log-prob grow as 1 / std."""
    found = equalizer_scales("bridge", shifted_sigmas(12, 3.0), eta=0.5)[:-1].tolist()
    assert all(earlier > later for earlier, later in pairwise(found))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_steps_have_the_median_gradient_after_scaling(prediction: Prediction) -> None:
    """Autograd at every step; the last, to alpha_bar 1, has no noise and keeps scale 1."""
    levels = torch.tensor([0.005, 0.1, 0.4, 0.8, 0.95, 1.0], dtype=torch.float64)
    scales = ddim_equalizer_scales(levels, eta=0.8, prediction=prediction).tolist()
    norms = []
    for step, pair in enumerate(pairwise(levels[:-1].tolist())):
        generator = torch.Generator().manual_seed(step)
        x, v, z = torch.randn((3, 1, 64), generator=generator, dtype=torch.float64)
        v.requires_grad_(True)
        found = ddim_transition(x, v, *pair, eta=0.8, prediction=prediction)
        after = (found.mean + found.std * z).detach()
        (64 * log_prob(after, found.mean, found.std)).sum().backward()
        assert v.grad is not None
        norms.append((v.grad.square().mean().sqrt() / z.square().mean().sqrt()).item())
    median = sorted(norms)[1]
    assert scales == pytest.approx([*(median / norm for norm in norms), 1.0], rel=1e-9)


def test_normalized_scales_have_mean_1_and_the_same_proportions() -> None:
    sigmas = shifted_sigmas(20, 5.0)
    plain = equalizer_scales("sage", sigmas, eta=0.5)
    found = equalizer_scales("sage", sigmas, eta=0.5, normalize="mean1")
    assert plain.mean().item() == pytest.approx(1.7, abs=0.05)
    torch.testing.assert_close(found * plain.mean(), plain)
    levels = torch.tensor([0.1, 0.4, 0.8, 0.99], dtype=torch.float64)
    given: dict = {"eta": 1.0, "prediction": "epsilon"}
    assert ddim_equalizer_scales(levels, normalize="mean1", **given).mean() == pytest.approx(1)


@pytest.mark.parametrize("variant", ["fixed", "paper", "released"])
def test_median_and_mean_run_over_the_steps_that_are_trained(variant) -> None:
    """Steps 3 .. 6: the norms rise, so the median is that of step 4; the mean is 1 over them."""
    sigmas, steps = shifted_sigmas(20, 5.0), (3, 4, 5, 6)
    whole = equalizer_scales("sage", sigmas, eta=0.5, variant=variant)
    found = equalizer_scales("sage", sigmas, eta=0.5, variant=variant, steps=steps)
    torch.testing.assert_close(found[3:7], whole[3:7] / whole[4])
    assert set(found[[*range(3), *range(7, 20)]].tolist()) == {1.0}
    given: dict = {"variant": variant, "steps": steps, "normalize": "mean1"}
    level = equalizer_scales("sage", sigmas, eta=0.5, **given)
    assert level[3:7].mean().item() == pytest.approx(1)
    torch.testing.assert_close(level[3:7] / level[4], found[3:7])


def test_ddim_takes_the_median_of_the_trained_steps_too() -> None:
    levels = torch.tensor([0.005, 0.1, 0.4, 0.8, 0.95, 1.0], dtype=torch.float64)
    given: dict = {"eta": 0.8, "prediction": "v_prediction"}
    whole = ddim_equalizer_scales(levels, **given)
    found = ddim_equalizer_scales(levels, **given, steps=(2, 3))
    torch.testing.assert_close(found[2:4], whole[2:4] / whole[2:4].max())
    level = ddim_equalizer_scales(levels, **given, steps=(2, 3), normalize="mean1")
    assert level[2:4].mean().item() == pytest.approx(1)
    assert set(found[[0, 1, 4]].tolist()) == {1.0}


def test_a_step_that_is_not_trained_needs_no_finite_noise() -> None:
    """The released variance of step 0 is negative at 70 steps."""
    sigmas = shifted_sigmas(70, 5.0)
    found = equalizer_scales("sage", sigmas, eta=0.5, variant="released", steps=range(30, 40))
    assert found.isfinite().all()


def test_without_the_score_correction_only_delta_over_std_is_left() -> None:
    """dance: n_i = sqrt(delta_i) / eta."""
    sigmas = shifted_sigmas(5, 3.0)
    found = equalizer_scales("dance", sigmas, eta=0.5, score_correction=False)
    norms = -sigmas.diff()
    torch.testing.assert_close(found, (norms.median() / norms).sqrt())
