"""The clipped surrogate: references, REINFORCE at ratio 1, poisoned padding, cuts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.objectives.clipped import Clip, clipped_surrogate
from mmrl.objectives.surrogate import LARGEST_LOG_RATIO, surrogate_loss
from mmrl.ops.weights import per_decision, per_sequence

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = json.loads((GOLDEN / "objectives.json").read_text())
PPO = json.loads((GOLDEN / "sage_aux.json").read_text())["ppo"]
NAMES = [
    "ppo_token_mean",
    "grpo_seq_mean",
    "on_policy_token_mean",
    "grpo_f1_clip_higher",
    "zero_advantage",
]


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_loss_gradient_and_clip_shares_equal_the_reference(name: str) -> None:
    inputs, hyper, expected = (CASES[name][key] for key in ("inputs", "hyper", "expected"))
    mask = tensor(inputs["mask"])
    weigh = per_decision if hyper["agg"] == "token_mean" else per_sequence
    new = tensor(inputs["logp_new"]).requires_grad_(True)
    loss, metrics = surrogate_loss(
        Clip(hyper["eps_low"], hyper["eps_high"]),
        new,
        tensor(inputs["logp_old"]),
        tensor(inputs["advantages"]),
        weigh(mask),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-12)
    torch.testing.assert_close(new.grad, tensor(expected["grad_logp_new"]), rtol=0, atol=1e-12)
    if hyper["agg"] == "token_mean":
        assert metrics["clip_fraction"] == pytest.approx(expected["clip_frac"], abs=1e-12)


def test_micro_batches_with_the_global_count_are_the_reference_batch() -> None:
    case = CASES["micro_batches_add_up"]
    given, hyper, expected = (case[key] for key in ("inputs", "hyper", "expected"))
    new = tensor(given["logp_new"]).requires_grad_(True)
    total = tensor([0.0])[0]
    for rows in given["micro_batches"]:
        loss, _ = surrogate_loss(
            Clip(hyper["eps_low"], hyper["eps_high"]),
            new[rows],
            tensor(given["logp_old"])[rows],
            tensor(given["advantages"])[rows],
            per_decision(tensor(given["mask"])[rows], total=hyper["tokens_global"]),
        )
        loss.backward()
        total = total + loss.detach()
    assert total.item() == pytest.approx(expected["loss"], abs=1e-12)
    torch.testing.assert_close(new.grad, tensor(expected["grad_logp_new"]), rtol=0, atol=1e-12)


def test_a_band_without_ends_is_plain_importance_weighting() -> None:
    case = CASES["importance_weighted_unclipped"]
    given, expected = case["inputs"], case["expected"]
    new = tensor(given["logp_new"]).requires_grad_(True)
    loss, metrics = surrogate_loss(
        Clip(1.0, math.inf),
        new,
        tensor(given["logp_old"]),
        tensor(given["advantages"]),
        per_decision(tensor(given["mask"])),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-12)
    assert metrics["clip_fraction"] == 0
    assert metrics["approx_kl"] == pytest.approx(expected["approx_kl_old"], abs=1e-12)
    torch.testing.assert_close(new.grad, tensor(expected["grad_logp_new"]), rtol=0, atol=1e-12)


def test_clips_are_counted_on_the_side_they_bind() -> None:
    """Ratios 2, 2, 1/2, 1/2 with A = 1, -1, 1, -1: only 2 up and 1/2 down are held back."""
    log_ratio = torch.log(tensor([[2.0], [2.0], [0.5], [0.5]])).requires_grad_(True)
    advantages, weights = tensor([1.0, -1.0, 1.0, -1.0]), torch.full((4, 1), 0.25)
    zeros = torch.zeros((4, 1), dtype=torch.float64)
    loss, metrics = surrogate_loss(Clip(0.2, 0.3), log_ratio, zeros, advantages, weights.double())
    loss.backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad[:, 0].tolist() == pytest.approx([0, 0.5, -0.125, 0], abs=1e-15)
    assert loss.item() == pytest.approx(-(1.3 - 2 + 0.5 - 0.8) / 4)
    assert metrics["clip_fraction_low"] == metrics["clip_fraction_high"] == 0.25
    assert metrics["clip_fraction"] == 0.5


def test_half_precision_log_probs_are_subtracted_in_float32() -> None:
    """-0.10009765625 + 1 needs ten bits, bfloat16 has eight and would make 0.8984375 of it."""
    new, old = (torch.tensor([[value]], dtype=torch.bfloat16) for value in (-0.1, -1.0))
    loss, metrics = surrogate_loss(Clip(0.2, 10.0), new, old, torch.ones(1), torch.ones(1, 1))
    assert loss.item() == pytest.approx(-math.exp(0.89990234375), rel=1e-6)
    assert metrics["approx_kl"] == pytest.approx(-0.89990234375, rel=1e-6)


def test_sage_grpos_loss_with_its_clamped_advantage() -> None:
    new = tensor(PPO["log_prob_new"])[:, None].requires_grad_(True)
    advantages = tensor(PPO["advantage"]).clamp(-PPO["adv_clip"], PPO["adv_clip"])
    loss, _ = surrogate_loss(
        Clip(PPO["clip"], PPO["clip"]),
        new,
        tensor(PPO["log_prob_old"])[:, None],
        advantages,
        torch.full((4, 1), 0.25, dtype=torch.float64),
    )
    loss.backward()
    assert loss.item() == pytest.approx(PPO["loss"], abs=1e-12)
    assert new.grad is not None
    torch.testing.assert_close(new.grad[:, 0], tensor(PPO["dloss_dlogp"]), rtol=0, atol=1e-12)


def test_on_policy_gradient_is_reinforce() -> None:
    """At ratio 1 the clip is idle: d loss / d log_prob = -w A."""
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], requires_grad=True)
    advantages, weights = torch.tensor([1.0, -2.0]), torch.full((2, 2), 0.25)
    loss, metrics = surrogate_loss(
        Clip(0.2, 0.2), log_probs, log_probs.detach(), advantages, weights
    )
    loss.backward()
    torch.testing.assert_close(log_probs.grad, -weights * advantages[:, None])
    assert metrics["clip_fraction"] == 0
    assert metrics["ratio"] == 1


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 700.0])
def test_padding_may_hold_anything(poison: float) -> None:
    log_probs = torch.tensor([[-1.0, poison], [poison, poison]], requires_grad=True)
    behavior = torch.tensor([[-1.5, -poison], [0.0, poison]])
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss, metrics = surrogate_loss(
        Clip(0.2, 0.2), log_probs, behavior, torch.tensor([1.0, 1.0]), weights
    )
    loss.backward()
    assert loss.item() == pytest.approx(-1.2)
    assert log_probs.grad is not None
    assert torch.isfinite(log_probs.grad).all()
    assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())


def test_micro_batches_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old = torch.randn((2, 4, 3), generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    weights = torch.rand((4, 3), generator=generator, dtype=torch.float64)
    bounds = Clip(0.2, 0.3)
    whole, metrics = surrogate_loss(bounds, new, old, advantages, weights)
    parts = [
        surrogate_loss(bounds, new[p], old[p], advantages[p], weights[p])
        for p in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
    for name, value in metrics.items():
        assert sum(found[name] for _, found in parts) == pytest.approx(value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dual", [None, 3.0])
@pytest.mark.parametrize("gain", [1.0, -1.0])
@pytest.mark.parametrize("log_ratio", [25.0, 100.0, 1e4, 3e38, -25.0, -100.0, -3e38])
def test_one_runaway_token_leaves_the_others_their_gradient(
    log_ratio: float, gain: float, dual: float | None, dtype: torch.dtype
) -> None:
    """Its own is 0: the clip holds it, or the bound on the log-ratio does."""
    new = torch.tensor([[log_ratio, -1.0]], dtype=dtype, requires_grad=True)
    old = torch.tensor([[0.0, -1.0]], dtype=dtype)
    weights = torch.full((1, 2), 0.5)
    loss, metrics = surrogate_loss(Clip(0.2, 0.3, dual), new, old, torch.tensor([gain]), weights)
    loss.backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[0.0, -0.5 * gain]]
    largest = math.exp(LARGEST_LOG_RATIO)
    held = {
        (True, True): 1.3,
        (True, False): -(dual or largest),
        (False, True): math.exp(-LARGEST_LOG_RATIO),
        (False, False): -0.8,
    }[log_ratio > 0, gain > 0]
    assert loss.item() == pytest.approx(-0.5 * (held + gain), rel=1e-6)
    stopped = log_ratio > 0 or gain < 0
    assert metrics["clip_fraction"] == (0.5 if stopped else 0)
    assert math.isfinite(metrics["ratio"])


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_up_to_its_bound_a_log_ratio_is_as_it_is(gain: float) -> None:
    new = tensor([[-19.9, -3.0, 0.0, 3.0, 19.9]]).requires_grad_()
    loss, metrics = surrogate_loss(
        Clip(1.0, math.inf), new, torch.zeros_like(new), tensor([gain]), torch.ones_like(new)
    )
    loss.backward()
    torch.testing.assert_close(new.grad, -gain * new.detach().exp(), rtol=1e-12, atol=0)
    assert metrics["clip_fraction"] == 0


def test_a_log_prob_that_is_not_a_number_is_not_hidden() -> None:
    new = torch.tensor([[math.nan, -1.0]], requires_grad=True)
    loss, _ = surrogate_loss(
        Clip(0.2, 0.2), new, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2)
    )
    assert loss.isnan()


def test_the_function_is_the_loss_of_its_clip() -> None:
    case = CASES["dual_clip"]
    given, hyper = case["inputs"], case["hyper"]
    new, old, gains = (tensor(given[name]) for name in ("logp_new", "logp_old", "advantages"))
    weights = per_decision(tensor(given["mask"]))
    bounds = {"clip_low": hyper["eps_low"], "clip_high": hyper["eps_high"]}
    loss, metrics = clipped_surrogate(new, old, gains, weights, **bounds, clip_dual=hyper["dual"])
    assert loss.item() == pytest.approx(case["expected"]["loss"], abs=1e-12)
    clip = Clip(hyper["eps_low"], hyper["eps_high"], hyper["dual"])
    assert metrics == surrogate_loss(clip, new, old, gains, weights)[1]
