"""AWM: the pseudo log-prob, its on-policy slope, one-sided clip."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mmrl.objectives.awm import Awm, matching_log_prob
from mmrl.objectives.clipped import Clip
from mmrl.types import Actions, ActionStats
from tests.objectives.batches import NoisedReplay, denoise_batch

PLAIN = Awm(clip=Clip(1.0, 1.0), power=0.25, advantage_clip=5.0)


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def actions(errors: torch.Tensor, velocity: torch.Tensor | None = None) -> Actions:
    return {"denoise": ActionStats(-errors, errors[..., None] if velocity is None else velocity)}


def batch_of(behavior: torch.Tensor, sigma: float, weights: torch.Tensor | None = None):
    sigmas = torch.full_like(behavior, sigma)
    replay = NoisedReplay(torch.zeros_like(behavior)[..., None], sigmas)
    stats = actions(behavior)["denoise"]
    return denoise_batch(stats, group_size=2, replay=replay, weights=weights)


def test_the_pseudo_log_prob_by_hand() -> None:
    """-0.5 / 0.25 (0.0625^0.25 - 0.003162) = -1 + 0.006325; power 1 is -sigma e."""
    error, sigma = tensor([[0.0625]]), tensor([[0.5]])
    quarter = matching_log_prob(error, sigma, power=0.25).item()
    assert quarter == pytest.approx(-2 * (0.5 - 10**-2.5), rel=1e-6)
    assert matching_log_prob(error, sigma, power=1.0).item() == pytest.approx(-0.03125)


def test_no_error_is_log_prob_zero_with_a_finite_slope() -> None:
    error = tensor([[0.0]]).requires_grad_(True)
    found = matching_log_prob(error, tensor([[0.5]]), power=0.25)
    (slope,) = torch.autograd.grad(found, error)
    assert found.item() == 0
    assert slope.item() == pytest.approx(-0.5 * 1e-10**-0.75)


def test_on_policy_the_slope_is_the_scaled_advantage_times_that_of_the_log_prob() -> None:
    """d loss / d e = w A sigma e^(p - 1), A = clamp(A, +-5) / 5: 0.5 * 0.4 * 0.5 * 8, and -1."""
    errors = tensor([[0.0625], [0.0625]])
    leaf = errors.clone().requires_grad_(True)
    loss, metrics = PLAIN(actions(leaf), {}, batch_of(errors, 0.5), tensor([2.0, -50.0]))
    (slopes,) = torch.autograd.grad(loss, leaf)
    assert slopes.flatten().tolist() == pytest.approx([0.8, -2.0], rel=1e-8)
    assert metrics["ratio"] == 1


def test_only_a_ratio_above_two_stops_and_only_for_good_samples() -> None:
    """Power 1, sigma 1: the error fell by 1, ratio e. Good is held at 2, bad goes on."""
    objective = replace(PLAIN, power=1.0)
    errors = tensor([[0.5], [0.5]]).requires_grad_(True)
    batch = batch_of(tensor([[1.5], [1.5]]), 1.0)
    loss, metrics = objective(actions(errors), {}, batch, tensor([5.0, -5.0]))
    (slopes,) = torch.autograd.grad(loss, errors)
    assert loss.item() == pytest.approx((-2 + math.e) / 2, rel=1e-6)
    assert slopes.flatten().tolist() == pytest.approx([0, -math.e / 2], rel=1e-6)
    assert metrics["clip_fraction_high"] == 0.5


def test_micro_batches_add_up_and_dead_decisions_may_hold_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    errors, old = torch.rand((2, 4, 2), generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    errors[:, 1] = math.nan
    batch = batch_of(old, 0.7, tensor([[0.25, 0.0]] * 4))
    found = []
    for cuts in ((slice(0, 4),), (slice(0, 2), slice(2, 4))):
        leaf = errors.clone().requires_grad_(True)
        for cut in cuts:
            PLAIN(actions(leaf[cut]), {}, batch.rows(cut), advantages[cut])[0].backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
    assert found[0].isfinite().all()
    assert found[0][:, 0].all()


def test_settings_are_checked_before_the_run() -> None:
    for name in ("power", "advantage_clip"):
        with pytest.raises(ValueError, match=f"{name} must be > 0, got 0.0"):
            replace(PLAIN, **{name: 0.0})
