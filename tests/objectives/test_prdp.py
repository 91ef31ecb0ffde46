"""PRDP's loss of one group: references, branches of the clip, invariances, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrl.objectives.prdp import prdp_loss

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["loss_cases"]}
OPTIONS: dict[str, Any] = {"beta": 0.3, "clip": 0.05}


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def expected_grad(case: dict[str, Any]) -> torch.Tensor:
    """A group without a pair has none on file."""
    grad = case["out"]["grad"]
    return torch.zeros_like(tensor(case["logp_cur"])) if grad is None else tensor(grad)


def settings(case: dict[str, Any]) -> dict[str, Any]:
    mask = case["step_mask"]
    return {
        "beta": case["beta"],
        "clip": case["eps"],
        "step_reduction": case["step_reduction"],
        "pairs": case["pair_set"],
        "step_mask": None if mask is None else torch.tensor(mask) != 0,
    }


def run(
    log_probs: torch.Tensor, behavior: torch.Tensor, reference: torch.Tensor, rewards, **options
) -> tuple[float, torch.Tensor, dict[str, float]]:
    """Loss, its gradient, its metrics."""
    leaf = log_probs.clone().requires_grad_(True)
    loss, metrics = prdp_loss(leaf, behavior, reference, rewards, **options)
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad, metrics


def run_case(case: dict[str, Any], **changes) -> tuple[float, torch.Tensor, dict[str, float]]:
    current, old, ref = (tensor(case[f"logp_{name}"]) for name in ("cur", "old", "ref"))
    return run(current, old, ref, tensor(case["rewards"]), **(settings(case) | changes))


def random_group(size: int, steps: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn((3, size, steps), generator=generator, dtype=torch.float64)
    return *(0.2 * tables), torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_pairs_equal_the_reference(name: str) -> None:
    expected = CASES[name]["out"]
    loss, grad, metrics = run_case(CASES[name])
    assert loss == pytest.approx(expected["loss"] or 0.0, rel=1e-9)
    torch.testing.assert_close(grad, expected_grad(CASES[name]), rtol=1e-9, atol=1e-12)
    assert metrics["pairs"] == expected["n_pairs"]
    mean = sum(expected["rhat"]) / len(expected["rhat"])
    assert metrics["log_ratio"] == pytest.approx(mean, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_float32_keeps_the_gradient_where_squares_round_to_equality(name: str) -> None:
    """At beta 3e-6 the squares of a pair differ by 1e-9 of their size."""
    case = CASES[name]
    current, old, ref = (tensor(case[f"logp_{table}"]) for table in ("cur", "old", "ref"))
    rewards = tensor(case["rewards"]).float()
    drift, start = (current - old).float(), (old - ref).float()
    _, grad, _ = run(drift, torch.zeros_like(drift), -start, rewards, **settings(case))
    expected = expected_grad(case)
    assert grad.dtype == torch.float32
    assert (grad - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_two_samples_on_policy_by_hand() -> None:
    """delta = -(1 - 0) / 0.5 = -2: loss 4, slope 2 delta / T = -2 for the better sample."""
    zeros = torch.zeros((2, 2), dtype=torch.float64)
    loss, grad, _ = run(zeros, zeros, zeros, tensor([1.0, 0.0]), beta=0.5, clip=0.1)
    assert loss == 4
    assert grad.tolist() == [[-2, -2], [2, 2]]


def test_a_step_that_overshot_the_clip_stops_and_free_steps_go_on() -> None:
    """Drifts 0.3, 0.05 and 0: delta 0.35 - 2, clipped 0.15 - 2 is larger; slope 2 * -1.85."""
    current, zeros = tensor([[0.3, 0.05], [0.0, 0.0]]), torch.zeros((2, 2), dtype=torch.float64)
    options = {"beta": 0.5, "clip": 0.1, "step_reduction": "sum"}
    loss, grad, metrics = run(current, zeros, zeros, tensor([1.0, 0.0]), **options)
    assert loss == pytest.approx(1.85**2)
    torch.testing.assert_close(grad, tensor([[0.0, -3.7], [3.7, 3.7]]))
    assert (metrics["clip_fraction"], metrics["clipped_pairs"]) == (0.25, 1)


def test_a_drift_against_the_reward_keeps_its_full_restoring_gradient() -> None:
    """Drift -0.3 of the better sample: delta -2.3 beats clipped -2.1; slope 2 * -2.3."""
    current, zeros = tensor([[-0.3], [0.0]]), torch.zeros((2, 1), dtype=torch.float64)
    loss, grad, metrics = run(current, zeros, zeros, tensor([1.0, 0.0]), beta=0.5, clip=0.1)
    assert loss == pytest.approx(2.3**2)
    torch.testing.assert_close(grad, tensor([[-4.6], [4.6]]))
    assert (metrics["clip_fraction"], metrics["clipped_pairs"]) == (0.5, 0)


def test_r2_says_how_much_of_the_reward_gaps_the_log_ratios_follow() -> None:
    """rhat 0 1 4 (from the reference at 0), rewards 0 1 2: gaps 1 4 3 on 1 2 1 of three pairs."""
    rhat = tensor([[0.0], [1.0], [4.0]])
    rewards, zero = tensor([0.0, 1.0, 2.0]), torch.zeros(3, 1, dtype=torch.float64)
    given = {"beta": 0.5, "clip": None}
    _, found = prdp_loss(rhat, zero, zero, rewards, **given)
    assert found["r2"] == pytest.approx(12**2 / (26 * 6))
    _, fitted = prdp_loss(rewards[:, None] / 0.5 + 7, zero, zero, rewards, **given)
    assert (fitted["r2"], fitted["residual"]) == (pytest.approx(1), pytest.approx(0))
    _, still = prdp_loss(zero, zero, zero, rewards, **given)
    assert still["r2"] == 0.0


def test_the_clip_fraction_is_told_step_by_step() -> None:
    """Of three scored samples 1 passes the bound at step 0, 2 at step 1; step 2 is masked."""
    moved = tensor([[0.2, 0.2, 9.0], [0.0, -0.2, 9.0], [0.0, 0.0, 9.0], [5.0, 5.0, 9.0]])
    zero, mask = torch.zeros(4, 3, dtype=torch.float64), torch.tensor([True, True, False])
    rewards = tensor([0.0, 1.0, 2.0, math.nan])
    _, found = prdp_loss(moved, zero, zero, rewards, beta=1.0, clip=0.1, step_mask=mask)
    names = [f"clip_fraction/step_{step}" for step in range(3)]
    assert [found[name] for name in names] == pytest.approx([1 / 3, 2 / 3, 0])
    assert found["clip_fraction"] == pytest.approx(1 / 2)


def test_permuting_the_group_permutes_the_gradient() -> None:
    current, old, ref, rewards = random_group(5, 3)
    order = torch.tensor([3, 0, 4, 1, 2])
    loss, grad, _ = run(current, old, ref, rewards, **OPTIONS)
    permuted, grads, _ = run(current[order], old[order], ref[order], rewards[order], **OPTIONS)
    assert permuted == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(grads, grad[order], rtol=1e-12, atol=1e-14)


def test_offsets_of_the_prompt_change_nothing() -> None:
    """A constant on all rewards, or on one step's reference for the whole group, drops out."""
    current, old, ref, rewards = random_group(4, 3)
    loss, grad, _ = run(current, old, ref, rewards, **OPTIONS)
    for other, shifted in ((ref, rewards + 7), (ref + tensor([0.0, 5.0, 0.0]), rewards)):
        found, slopes, _ = run(current, old, other, shifted, **OPTIONS)
        assert found == pytest.approx(loss, rel=1e-10)
        torch.testing.assert_close(slopes, grad, rtol=1e-10, atol=1e-12)


def test_wide_clips_are_no_clip_and_a_clip_never_lowers_the_loss() -> None:
    current, old, ref, rewards = random_group(6, 4)
    loss, grad, _ = run(current, old, ref, rewards, beta=0.3, clip=None)
    for clip in (10.0, math.inf):
        found, slopes, metrics = run(current, old, ref, rewards, beta=0.3, clip=clip)
        assert (found, metrics["clip_fraction"]) == (loss, 0)
        assert slopes.equal(grad)
    assert run(current, old, ref, rewards, beta=0.3, clip=0.05)[0] > loss


def test_on_policy_the_clip_changes_not_one_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        _, old, ref, rewards = (values.to(dtype) for values in random_group(7, 4))
        clipped = run(old, old, ref, rewards, beta=3e-6, clip=1e-4)
        free = run(old, old, ref, rewards, beta=3e-6, clip=None)
        assert clipped[0] == free[0]
        assert clipped[1].equal(free[1])


def test_over_all_pairs_the_loss_is_twice_the_variance_of_what_the_reward_leaves() -> None:
    """f = rhat - r / beta: loss 2 Var f, slope 4 (f - mean f) / ((G - 1) T)."""
    current, old, ref, rewards = random_group(5, 4)
    loss, grad, _ = run(current, old, ref, rewards, beta=0.3, clip=None, pairs="all")
    f = (current - ref).mean(1) - rewards / 0.3
    assert loss == pytest.approx(2 * f.var().item(), rel=1e-12)
    expected = 4 * (f - f.mean()) / ((5 - 1) * 4)
    torch.testing.assert_close(grad, expected[:, None].expand(5, 4))


@pytest.mark.parametrize("beta", [3e-5, 1e-2, 1.0])
def test_on_policy_gradient_is_leave_one_out_reinforce_with_a_kl_reward(beta: float) -> None:
    """4 / beta times -A_i / G, with A of r - beta rhat against the mean of the others."""
    _, old, ref, rewards = random_group(6, 3)
    _, grad, _ = run(old, old, ref, rewards, beta=beta, clip=1e-4, step_reduction="sum")
    gain = rewards - beta * (old - ref).sum(1)
    others = (gain.sum() - gain) / (6 - 1)
    expected = -(gain - others) / 6 * 4 / beta
    torch.testing.assert_close(grad, expected[:, None].expand(6, 3), rtol=1e-9, atol=1e-12)


def test_slopes_carried_through_a_network_are_the_gradient_of_the_whole_loss() -> None:
    """Pass 1: d loss / d log_probs without a graph; pass 2: one step at a time, any order."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
    ).double()
    states = torch.randn((4, 3, 2), dtype=torch.float64)
    _, _, ref, rewards = random_group(4, 3)
    old = net(states).detach()[..., 0] - 0.5 * ref
    prdp_loss(net(states)[..., 0], old, ref, rewards, **OPTIONS)[0].backward()
    whole = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    _, slopes, metrics = run(net(states).detach()[..., 0], old, ref, rewards, **OPTIONS)
    assert 0 < metrics["clipped_pairs"] < 1
    for step in (2, 0, 1):
        (slopes[:, step] * net(states[:, step])[:, 0]).sum().backward()
    for p, expected in zip(net.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("poison", [1e30, math.nan, math.inf])
def test_masked_steps_may_hold_anything_and_leave_the_divisor(poison: float) -> None:
    current, old, ref, rewards = random_group(4, 3)
    keep = [0, 2]
    loss, grad, _ = run(current[:, keep], old[:, keep], ref[:, keep], rewards, **OPTIONS)
    current[:, 1], old[:, 1], ref[:, 1] = poison, -poison, poison
    mask = torch.tensor([True, False, True])
    found, slopes, _ = run(current, old, ref, rewards, step_mask=mask, **OPTIONS)
    assert found == pytest.approx(loss, rel=1e-12)
    assert slopes[:, 1].tolist() == [0] * 4
    torch.testing.assert_close(slopes[:, keep], grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("pairs", ["strict", "all"])
def test_a_sample_without_a_score_leaves_the_group_as_if_never_drawn(pairs: str) -> None:
    current, old, ref, rewards = random_group(4, 3)
    options = OPTIONS | {"pairs": pairs}
    loss, grad, metrics = run(current[1:], old[1:], ref[1:], rewards[1:], **options)
    rewards[0], current[0] = math.nan, math.nan
    found, slopes, others = run(current, old, ref, rewards, **options)
    assert found == pytest.approx(loss, rel=1e-12)
    assert slopes[0].tolist() == [0] * 3
    torch.testing.assert_close(slopes[1:], grad, rtol=1e-12, atol=1e-14)
    assert others == pytest.approx(metrics)


@pytest.mark.parametrize("rewards", [[1.0, 1.0], [1.0, math.nan], [math.nan, math.nan]])
def test_a_group_without_a_pair_gives_zero_and_no_gradient(rewards: list[float]) -> None:
    current, old, ref, _ = random_group(2, 3)
    loss, grad, metrics = run(current, old, ref, tensor(rewards), beta=0.3, clip=0.05)
    assert (loss, metrics["pairs"]) == (0, 0)
    assert not grad.any()


def test_the_tilted_policy_has_loss_zero_from_one_first_noise_and_not_from_several() -> None:
    """A linear-Gaussian chain with a linear reward; the law of x_T is not the policy's to move."""
    for name, loss in (("linear_chain_shared_xT", 0.0), ("linear_chain_independent_xT", 5.0786)):
        case = GOLDEN["analytic_chain"][name]
        current, ref = tensor(case["logp_cur"]), tensor(case["logp_ref"])
        options = {"beta": case["beta"], "clip": None, "step_reduction": "sum", "pairs": "all"}
        found, grad, _ = run(current, current, ref, tensor(case["rewards"]), **options)
        assert found == pytest.approx(case["loss"], rel=1e-9, abs=1e-24)
        assert found == pytest.approx(loss, abs=1e-4)
        assert (grad.abs().max() < 1e-12) == (loss == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "beta must be a finite number > 0, got 0.0"),
        ({"beta": math.nan}, "beta must be a finite number > 0, got nan"),
        ({"clip": 0.0}, "clip must be > 0, got 0.0; null"),
        ({"step_mask": torch.zeros(3, dtype=torch.bool)}, "no live step"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    options = OPTIONS | changes
    with pytest.raises(ValueError, match=message):
        prdp_loss(*random_group(4, 3), **options)


def test_what_is_wrong_in_a_group_is_named_by_sample_and_step() -> None:
    current, old, ref, rewards = random_group(4, 3)
    old[2, 1] = math.nan
    with pytest.raises(ValueError, match="behavior of sample 2, step 1 must be finite, got nan"):
        prdp_loss(current, old, ref, rewards, **OPTIONS)
    rewards[3] = math.inf
    with pytest.raises(ValueError, match=r"rewards\[3\] must be finite, got inf"):
        prdp_loss(current, current, ref, rewards, **OPTIONS)
    with pytest.raises(ValueError, match="needs >= 2 samples to form a pair, got 1"):
        prdp_loss(current[:1], current[:1], ref[:1], rewards[:1], **OPTIONS)
    with pytest.raises((ValueError, TypeError)):
        prdp_loss(current, current[:, :1], ref, rewards[:4], **OPTIONS)


def test_anchors_that_would_be_trained_and_half_precision_are_refused() -> None:
    current, old, ref, rewards = random_group(4, 3)
    with pytest.raises(ValueError, match="reference must be a constant"):
        prdp_loss(current, old, ref.requires_grad_(True), rewards, **OPTIONS)
    with pytest.raises(ValueError, match="float32 or wider, got"):
        prdp_loss(current.bfloat16(), old, ref.detach(), rewards, **OPTIONS)
