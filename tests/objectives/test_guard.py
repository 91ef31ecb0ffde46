"""GRPO-Guard: ratios centred on 1 and slopes of one size at every noise level."""

from __future__ import annotations

import math

import pytest
import torch

from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.guard import Guard, regulated_log_ratio
from mmrl.ops import gaussian
from mmrl.types import Actions, ActionStats, Rollout
from tests.objectives.batches import denoise_batch

STDS = torch.tensor([0.5, 0.05], dtype=torch.float64)


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stats(drawn: torch.Tensor, mean: torch.Tensor) -> ActionStats:
    """Likelihood of drawn steps, one std a step."""
    columns = [gaussian.log_prob(drawn[:, t], mean[:, t], std) for t, std in enumerate(STDS)]
    return ActionStats(torch.stack(columns, dim=1), mean, STDS.expand(len(drawn), 2))


def case(rows: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Behavior means, standard normal draws, and the steps they make."""
    generator = torch.Generator().manual_seed(0)
    mean, z = torch.randn((2, rows, 2, 6), generator=generator, dtype=torch.float64)
    return mean, z, mean + STDS[None, :, None] * z


def run(objective, mean: torch.Tensor, batch: Rollout, drawn: torch.Tensor, advantages):
    leaf = mean.clone().requires_grad_(True)
    current: Actions = {"denoise": stats(drawn, leaf)}
    loss, metrics = objective(current, {}, batch, advantages)
    return loss, torch.autograd.grad(loss, leaf)[0], metrics


def test_the_regulated_log_ratio_is_the_draw_times_the_drift_at_every_noise_level() -> None:
    mean, z, drawn = case()
    moved = mean + 0.01 * torch.sin(mean)
    log_ratio = stats(drawn, moved).log_probs - stats(drawn, mean).log_probs
    ones = torch.ones_like(log_ratio)
    found = regulated_log_ratio(log_ratio, moved, mean, STDS.expand(4, 2), ones)
    torch.testing.assert_close(found, (z * (moved - mean)).mean(-1))


def test_one_step_by_hand() -> None:
    """std 0.5, drift 0.2 in one of two dimensions: 0.5 * -0.3 + 0.04 / 2 / 1."""
    found = regulated_log_ratio(
        tensor([[-0.3]]), tensor([[[0.2, 1.0]]]), tensor([[[0.0, 1.0]]]), tensor([[0.5]]),
        tensor([[1.0]]),
    )  # fmt: skip
    assert found.item() == pytest.approx(-0.15 + 0.02)


def test_on_policy_slopes_are_equal_over_steps_where_grpos_differ_by_the_std() -> None:
    """-w A z / D against -w A z / (D std)."""
    mean, z, drawn = case()
    advantages, batch = (
        tensor([1.0, -1.0, 0.5, 2.0]),
        denoise_batch(stats(drawn, mean), group_size=2),
    )
    clip = Clip(1e-4, 1e-4)
    loss, slopes, metrics = run(Guard(clip), mean, batch, drawn, advantages)
    expected = -advantages[:, None, None] * z / 6 / 8
    torch.testing.assert_close(slopes, expected)
    assert loss.item() == pytest.approx(-advantages.mean().item())
    assert (metrics["ratio"], metrics["clip_fraction"]) == (1, 0)
    _, plain, _ = run(Grpo({"denoise": clip}), mean, batch, drawn, advantages)
    torch.testing.assert_close(plain, expected / STDS[None, :, None])


def test_a_drift_off_every_draw_moves_no_ratio_though_the_density_fell() -> None:
    """z = 0: the log-ratio is -drift^2 / (2 std^2), the regulated one 0."""
    mean, _, _ = case()
    batch = denoise_batch(stats(mean, mean), group_size=2)
    _, _, metrics = run(Guard(Clip(1e-4, 1e-4)), mean + 0.01, batch, mean, torch.ones(4).double())
    assert metrics["ratio"] == pytest.approx(1, abs=1e-12)
    assert metrics["clip_fraction"] == 0
    assert metrics["approx_kl"] == pytest.approx((0.0001 / (2 * STDS**2)).mean().item())


def test_step_scales_weigh_the_loss_and_not_the_metrics() -> None:
    mean, _, drawn = case()
    advantages, scales = tensor([1.0, -1.0, 0.5, 2.0]), tensor([3.0, 10.0])
    plain = denoise_batch(stats(drawn, mean), group_size=2)
    scaled = denoise_batch(stats(drawn, mean), group_size=2, scales=scales)
    objective = Guard(Clip(1e-4, 1e-4))
    _, slopes, metrics = run(objective, mean, plain, drawn, advantages)
    _, weighed, others = run(objective, mean, scaled, drawn, advantages)
    torch.testing.assert_close(weighed, slopes * scales[None, :, None])
    assert others == metrics


def test_micro_batches_add_up_and_dead_decisions_may_hold_anything() -> None:
    mean, _, drawn = case()
    moved, advantages = mean + 1e-4 * drawn, tensor([1.0, -1.0, 0.5, 2.0])
    moved[:, 1] = math.nan
    batch = denoise_batch(stats(drawn, mean), group_size=2, weights=tensor([[0.25, 0.0]] * 4))
    objective = Guard(Clip(1e-4, 1e-4))
    loss, slopes, _ = run(objective, moved, batch, drawn, advantages)
    parts = [
        run(objective, moved[cut], batch.rows(cut), drawn[cut], advantages[cut])
        for cut in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.stack([part[0] for part in parts]).sum(), loss)
    torch.testing.assert_close(torch.cat([part[1] for part in parts])[:, 0], slopes[:, 0])


def test_steps_without_mean_or_noise_are_refused() -> None:
    mean, _, drawn = case()
    at = stats(drawn, mean)
    objective, advantages = Guard(Clip(1e-4, 1e-4)), torch.ones(4).double()
    bare: Actions = {"denoise": ActionStats(at.log_probs)}
    with pytest.raises(ValueError, match="needs the mean and std"):
        objective(bare, {}, denoise_batch(at, group_size=2), advantages)
    still = ActionStats(at.log_probs, mean, torch.zeros(4, 2).double())
    with pytest.raises(ValueError, match="std must be > 0 on trained steps"):
        objective({"denoise": at}, {}, denoise_batch(still, group_size=2), advantages)


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_a_step_that_ran_away_leaves_the_others_their_slopes(gain: float) -> None:
    """Along a draw, so that its log-ratio is far above what an exponential holds."""
    mean, z, drawn = case()
    moved = mean.clone()
    moved[0, 0] += 1e4 * z[0, 0]
    batch = denoise_batch(stats(drawn, mean), group_size=2)
    clip = Clip(1e-4, 1e-4)
    advantages = torch.full((4,), gain, dtype=torch.float64)
    loss, slopes, _ = run(Guard(clip), moved, batch, drawn, advantages)
    _, expected, _ = run(Guard(clip), mean, batch, drawn, advantages)
    assert loss.isfinite()
    assert not slopes[0, 0].any()
    slopes[0, 0] = expected[0, 0]
    torch.testing.assert_close(slopes, expected)
