"""Weights of timesteps: their proportions, their mean, and their place in a shuffled loss."""

from __future__ import annotations

import pytest
import torch

from mmrl.diffusion.ddim import ddim_stds
from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.timestep_weights import mean_one, noise_level_weights, uniform_weights
from mmrl.diffusion.transitions import step_stds
from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.ops.weights import per_timestep

SIGMAS = shifted_sigmas(8, 3.0)


def test_noise_level_weights_are_proportional_to_the_noise_of_the_step() -> None:
    """dance: std = eta sqrt(delta), so eta cancels."""
    found = noise_level_weights("dance", SIGMAS, eta=0.3)
    assert found.mean().item() == pytest.approx(1)
    roots = (SIGMAS[:-1] - SIGMAS[1:]).sqrt()
    torch.testing.assert_close(found, roots / roots.mean())
    assert noise_level_weights("sage", SIGMAS, eta=0.5).argmax() == 0


def test_flow_steps_that_are_noisier_count_more() -> None:
    stds = step_stds("flow", SIGMAS, eta=0.7)
    found = noise_level_weights("flow", SIGMAS, eta=0.7)
    torch.testing.assert_close(found / found[0], stds / stds[0])


def test_the_mean_of_1_is_that_of_the_trained_steps() -> None:
    found = noise_level_weights("flow", SIGMAS, eta=0.7, steps=(2, 3, 5))
    stds = step_stds("flow", SIGMAS, eta=0.7)[[2, 3, 5]]
    torch.testing.assert_close(found[[2, 3, 5]], stds / stds.mean())
    assert found[[0, 1, 4, 6, 7]].tolist() == [0.0] * 5


def test_uniform_weights_are_ones_and_stay_so() -> None:
    assert uniform_weights(SIGMAS).tolist() == mean_one(uniform_weights(SIGMAS)).tolist() == [1] * 8


def test_stds_of_ddim_make_weights_too() -> None:
    found = mean_one(ddim_stds(torch.tensor([0.1, 0.4, 0.8, 1.0]).double(), eta=1.0))
    assert found.mean().item() == pytest.approx(1)
    assert found[-1] == 0


def test_a_schedule_without_noise_has_no_weights() -> None:
    with pytest.raises(ValueError, match="a mean > 0, got a mean of 0"):
        noise_level_weights("sage", SIGMAS, eta=0.0)


def test_steps_in_any_order_with_their_own_scales_give_one_gradient() -> None:
    """A scale belongs to the step it was made for, not to the place in the batch."""
    steps = torch.tensor(StepPlan.window(8, 1, 4).trained_steps())
    scales = equalizer_scales("sage", SIGMAS, eta=0.5)
    generator = torch.Generator().manual_seed(0)
    behavior = torch.randn((3, 8), generator=generator, dtype=torch.float64)
    current = (behavior + 1e-5 * torch.randn((3, 8), generator=generator)).requires_grad_(True)
    advantages = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradients = []
    for order in (torch.arange(4), torch.tensor([2, 0, 3, 1])):
        chosen = steps[order]
        weights = per_timestep(torch.ones(3, 4, dtype=torch.float64), scales[chosen])
        loss, _ = surrogate_loss(
            Clip(0.0001, 0.0001), current[:, chosen], behavior[:, chosen], advantages, weights
        )
        gradients.append(torch.autograd.grad(loss, current)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=0)
    assert gradients[0][:, 1:5].all()
    assert not gradients[0][:, [0, 5, 6, 7]].any()
