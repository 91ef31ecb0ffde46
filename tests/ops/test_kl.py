"""KL of tokens, latents and denoising steps: references, signs, limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmrl.ops import gaussian
from mmrl.ops.kl import STEEPEST, estimate, kl
from mmrl.types import ActionStats

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/objectives.json").read_text())


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimators_have_the_reference_values_and_gradients(kind) -> None:
    case = GOLDEN["kl_estimators_pointwise"]
    new = tensor(case["inputs"]["logp_new"]).requires_grad_(True)
    found = estimate(kind, new, tensor(case["inputs"]["logp_ref"]))
    found.sum().backward()
    torch.testing.assert_close(found.detach(), tensor(case["expected"]["values"][kind]))
    torch.testing.assert_close(new.grad, tensor(case["expected"]["grads"][kind]))


@pytest.mark.parametrize("drawn_by", ["current", "old"])
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_as_a_loss_each_estimator_has_the_enumerated_gradient(kind, drawn_by: str) -> None:
    """Four tokens: k2 of the policy's own samples follows KL(policy || anchor), k1 nothing."""
    case = GOLDEN["kl_expected_gradients"]
    theta = tensor(case["inputs"]["theta"]).requires_grad_(True)
    log_probs = theta.log_softmax(0)
    old = tensor(case["inputs"]["logits_old"]).softmax(0)
    shares = log_probs.exp().detach() if drawn_by == "current" else old
    anchor = tensor(case["inputs"]["logits_ref"]).log_softmax(0)
    (shares * estimate(kind, log_probs, anchor)).sum().backward()
    expected = case["expected"]["estimator_gradients"][f"samples_from_{drawn_by}"][kind]
    torch.testing.assert_close(theta.grad, tensor(expected), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_estimators_are_0_with_gradient_0_at_equality_and_never_negative(kind) -> None:
    log_probs = tensor([-1.0, -0.1, -7.0]).requires_grad_(True)
    found = estimate(kind, log_probs, log_probs.detach())
    found.sum().backward()
    assert found.tolist() == [0, 0, 0]
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [0, 0, 0]
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn((2, 1000), generator=generator, dtype=torch.float64)
    assert (estimate(kind, pairs[0], pairs[1]) >= 0).all()


def test_k3_of_close_policies_keeps_its_digits() -> None:
    """d^2 / 2 for small d; exp(-d) - 1 taken literally would lose it."""
    near = estimate("k3", tensor([-1.0 + 1e-7]), tensor([-1.0]))
    assert near.item() == pytest.approx(0.5e-14, rel=1e-4, abs=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("drift", [21.0, 89.0, 1e4, 1e20])
def test_k3_of_a_token_far_below_its_anchor_is_finite_and_pulls_it_up(
    drift: float, dtype: torch.dtype
) -> None:
    """Value and slope of the tangent at STEEPEST, where exp(d) itself passes float32 at 88.7."""
    log_prob = torch.tensor([-drift], dtype=dtype, requires_grad=True)
    found = estimate("k3", log_prob, torch.zeros(1, dtype=dtype))
    found.sum().backward()
    slope, distance = math.exp(STEEPEST), -log_prob.item()
    expected = slope - 1 + slope * (distance - STEEPEST) - distance
    assert log_prob.grad is not None
    digits = {torch.bfloat16: 2e-2, torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    assert found.item() == pytest.approx(expected, rel=digits)
    assert log_prob.grad.item() == pytest.approx(1 - slope, rel=digits)


def test_k3_is_smooth_where_its_tangent_begins_and_untouched_before() -> None:
    d = tensor([STEEPEST - 1e-6, STEEPEST, STEEPEST + 1e-6])
    values = estimate("k3", -d, torch.zeros_like(d))
    torch.testing.assert_close(values, d.exp() - 1 - d, rtol=1e-12, atol=0)
    near = tensor([-1.0, 0.0, 5.0, 19.0])
    torch.testing.assert_close(
        estimate("k3", -near, torch.zeros_like(near)), torch.expm1(near) - near, rtol=0, atol=0
    )


def test_gaussian_kl_of_one_step_equals_the_reference() -> None:
    case = GOLDEN["kl_gaussian_step"]
    means = tensor(case["inputs"]["mean_new"]), tensor(case["inputs"]["mean_ref"])
    std, expected = tensor(case["inputs"]["std"]), tensor(case["expected"]["mean_over_dims"])
    torch.testing.assert_close(gaussian.kl(*means, std), expected)
    stats = [ActionStats(torch.zeros(1, 2), mean[None], std[None]) for mean in means]
    torch.testing.assert_close(kl("denoise", *stats)[0], expected)


def test_tokens_are_estimated_and_latents_take_the_closed_form() -> None:
    """kappa A_d(kappa) (1 - cos), and A_3(kappa) = coth kappa - 1 / kappa."""
    log_probs = tensor([[-1.0, -2.0]])
    stats, anchor = ActionStats(log_probs), ActionStats(log_probs - 0.5)
    assert kl("token", stats, anchor, estimator="k1").tolist() == [[0.5, 0.5]]
    assert kl("token", stats, anchor).equal(kl("token", stats, anchor, estimator="k3"))
    kappa = tensor([[2.0]])
    first, second = tensor([[[1.0, 0.0, 0.0]]]), tensor([[[0.6, 0.8, 0.0]]])
    found = kl("latent", *(ActionStats(log_probs[:, :1], m, kappa) for m in (first, second)))
    expected = 2 * (1 / math.tanh(2) - 1 / 2) * (1 - 0.6)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_penalties_pull_a_policy_that_differs_and_not_one_that_does_not() -> None:
    mean = tensor([[[1.0, 0.0]]])
    for offset, pulled in ((0.0, False), (0.3, True)):
        moved = (mean + offset).requires_grad_(True)
        at = ActionStats(torch.zeros(1, 1), moved, tensor([[0.5]]))
        kl("denoise", at, ActionStats(torch.zeros(1, 1), mean, tensor([[0.5]]))).sum().backward()
        assert moved.grad is not None
        assert bool(moved.grad.any()) is pulled


def test_gaussian_kl_and_log_prob_are_those_of_the_distribution_per_element() -> None:
    x, mean, other = torch.randn(
        (3, 2, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    std = tensor([0.3])[0]
    law, anchor = Normal(mean, std), Normal(other, std)
    torch.testing.assert_close(gaussian.log_prob(x, mean, std), law.log_prob(x).flatten(1).mean(1))
    torch.testing.assert_close(
        gaussian.kl(mean, other, std), kl_divergence(law, anchor).flatten(1).mean(1)
    )


def test_denoise_kl_is_zero_at_equality_quadratic_and_silent_without_noise() -> None:
    log_probs, scale = torch.zeros(1, 3), tensor([[0.5, 0.5, 0.0]])
    at = ActionStats(log_probs, torch.zeros(1, 3, 2, dtype=torch.float64), scale)
    one = ActionStats(log_probs, torch.ones(1, 3, 2, dtype=torch.float64), scale)
    two = ActionStats(log_probs, 2 * torch.ones(1, 3, 2, dtype=torch.float64), scale)
    assert kl("denoise", at, at).tolist() == [[0, 0, 0]]
    assert kl("denoise", one, at).tolist() == [[2, 2, 0]]
    assert kl("denoise", two, at).tolist() == [[8, 8, 0]]


def test_a_deterministic_step_has_no_log_prob() -> None:
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian.log_prob(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(()))
