"""Loss and trust region at the first look after a rollout: sampler, log-prob and loss together."""

from __future__ import annotations

import pytest
import torch

from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sampler import sample_path, step_transition
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, transition
from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.ops import gaussian
from mmrl.ops.kl import estimate
from mmrl.ops.weights import per_timestep

SIGMAS = shifted_sigmas(6, 3.0)
STOCHASTIC: list[TransitionKind] = ["flow", "dance", "sage", "cps", "bridge"]


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_the_first_loss_is_minus_the_mean_of_advantage_times_scale(kind: TransitionKind) -> None:
    """Ratios are exactly 1, so nothing is clipped; steps outside the window are not in it."""
    gain = torch.tensor(0.7, requires_grad=True)
    plan = StepPlan.window(6, 1, 3)
    draw = lambda step: torch.randn((4, 9), generator=torch.Generator().manual_seed(step))  # noqa: E731
    path = sample_path(
        lambda x, step: (gain * x).detach(),
        draw(99),
        SIGMAS,
        kind=kind,
        eta=0.5,
        stochastic=plan.stochastic,
        noise=draw,
    )
    behavior, current = [], []
    for step in plan.trained_steps():
        before, after, sampled = path.states[step], path.states[step + 1], path.transitions[step]
        assert sampled is not None
        again = step_transition(kind, before, gain * before, SIGMAS, step, eta=0.5, variant="fixed")
        behavior.append(gaussian.log_prob(after, sampled.mean, sampled.std))
        current.append(gaussian.log_prob(after, again.mean, again.std))
    scales = equalizer_scales(kind, SIGMAS, eta=0.5)[list(plan.trained_steps())].float()
    advantages = torch.tensor([1.0, -2.0, 0.5, 3.0])
    loss, metrics = surrogate_loss(
        Clip(0.0001, 0.0001),
        torch.stack(current, 1),
        torch.stack(behavior, 1),
        advantages,
        per_timestep(torch.ones(4, 3), scales),
    )
    assert torch.equal(torch.stack(current, 1), torch.stack(behavior, 1))
    assert loss.item() == pytest.approx(-(advantages[:, None] * scales).mean().item(), rel=1e-6)
    assert metrics["clip_fraction"] == 0
    assert torch.autograd.grad(loss, gain)[0].abs() > 0


def stepwise_gradients(form: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and d KL / d velocity of each row, the policy being the one that sampled."""
    generator = torch.Generator().manual_seed(0)
    x, v, z = torch.randn((3, rows, 1), generator=generator, dtype=torch.float64)
    v.requires_grad_(True)
    law = transition("sage", x, v, 0.5, 0.3, eta=0.5, sigma_1=0.9)
    after, mean = (law.mean + law.std * z).detach(), law.mean.detach()
    if form == "analytic":
        value = gaussian.kl(law.mean, mean, law.std)
    else:
        there = gaussian.log_prob(after, mean, law.std)
        value = estimate("k1", there, gaussian.log_prob(after, law.mean, law.std))
    return value.detach(), torch.autograd.grad(value.sum(), v)[0]


def test_the_analytic_stepwise_kl_is_0_with_gradient_0_at_the_policy_that_sampled() -> None:
    value, gradient = stepwise_gradients("analytic", 100)
    assert not value.any()
    assert not gradient.any()


def test_the_monte_carlo_stepwise_kl_of_the_release_is_pure_noise_there() -> None:
    """mean(log_prob_old - log_prob): value 0, gradient 0 on average but J / std in size."""
    rows = 100_000
    value, gradient = stepwise_gradients("monte carlo", rows)
    size = 0.2170590296 / 0.1847107446
    assert not value.any()
    assert gradient.std().item() == pytest.approx(size, rel=0.02)
    assert abs(gradient.mean().item()) < 4 * size / rows**0.5
