"""Diffusion-DPO: reference number, indifference at the reference, who is preferred."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.objectives.diffusion_dpo import DiffusionDpo, diffusion_dpo_loss
from mmrl.types import Actions, ActionStats
from tests.objectives.batches import NoisedReplay, denoise_batch

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())
CASE = GOLDEN["baselines"]["diffusion_dpo"]


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def actions(errors: torch.Tensor) -> Actions:
    return {"denoise": ActionStats(-errors)}


def batch_of(errors: torch.Tensor, sigmas: torch.Tensor | None = None, group_size: int = 2):
    sigmas = torch.full_like(errors, 0.5) if sigmas is None else sigmas
    replay = NoisedReplay(torch.zeros_like(errors)[..., None], sigmas)
    return denoise_batch(actions(errors)["denoise"], group_size=group_size, replay=replay)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_row_of_larger_reward_is_preferred_wherever_it_stands(order: list[int]) -> None:
    errors = tensor([[CASE["mse_w"]], [CASE["mse_l"]]])[order]
    reference = tensor([[CASE["mse_ref_w"]], [CASE["mse_ref_l"]]])[order]
    rewards = tensor([0.7, -0.2])[order]
    objective = DiffusionDpo(beta=CASE["beta"])
    anchors = {"fixed": actions(reference)}
    loss, metrics = objective(actions(errors), anchors, batch_of(errors), rewards)
    assert loss.item() == pytest.approx(CASE["loss"], rel=1e-9)
    assert metrics["margin"] == pytest.approx(CASE["inside"], rel=1e-9)
    assert (metrics["accuracy"], metrics["skipped"]) == (1, 0)


def test_at_the_reference_the_loss_is_log_2_and_the_better_error_shrinks() -> None:
    """d loss / d e = +-beta / 4 on one decision."""
    errors = tensor([[0.3], [0.2]])
    leaf = errors.clone().requires_grad_(True)
    half = torch.full((2, 1), 0.5).double()
    loss, _ = diffusion_dpo_loss(leaf, errors, tensor([1.0, 0.0]), half, beta=8.0)
    (slopes,) = torch.autograd.grad(loss, leaf)
    assert loss.item() == pytest.approx(math.log(2))
    assert slopes.flatten().tolist() == pytest.approx([2.0, -2.0])


def test_a_margin_of_thousands_keeps_a_finite_loss_and_slope() -> None:
    errors = torch.tensor([[9.0], [1.0]], requires_grad=True)
    reference, half = torch.tensor([[1.0], [1.0]]), torch.full((2, 1), 0.5)
    loss, _ = diffusion_dpo_loss(errors, reference, torch.tensor([1.0, 0.0]), half, beta=5000.0)
    (slopes,) = torch.autograd.grad(loss, errors)
    assert loss.item() == 20000
    assert slopes.flatten().tolist() == [2500, -2500]


@pytest.mark.parametrize("rewards", [[0.5, 0.5], [math.nan, 0.5], [0.5, math.nan]])
def test_a_pair_that_ties_or_was_not_scored_leaves(rewards: list[float]) -> None:
    errors, reference = tensor([[0.1], [0.3], [0.2], [0.2]]), tensor([[0.2]] * 4)
    leaf = errors.clone().requires_grad_(True)
    anchors = {"fixed": actions(reference)}
    loss, metrics = DiffusionDpo(beta=10.0)(
        actions(leaf), anchors, batch_of(errors), tensor([1.0, 0.0, *rewards])
    )
    (slopes,) = torch.autograd.grad(loss, leaf)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.0)) / 2)
    assert slopes[2:].flatten().tolist() == [0, 0]
    assert metrics["skipped"] == 0.5


def test_micro_batches_of_whole_pairs_add_up_and_dead_decisions_may_hold_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    errors, reference = torch.rand((2, 4, 2), generator=generator, dtype=torch.float64)
    rewards, weights = tensor([0.0, 1.0, 3.0, 2.0]), tensor([[0.25, 0.0]] * 4)
    errors[:, 1] = math.nan
    whole, parts = (errors.clone().requires_grad_(True) for _ in range(2))
    diffusion_dpo_loss(whole, reference, rewards, weights, beta=9.0)[0].backward()
    for cut in (slice(0, 2), slice(2, 4)):
        tables = parts[cut], reference[cut], rewards[cut], weights[cut]
        diffusion_dpo_loss(*tables, beta=9.0)[0].backward()
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-14)
    assert whole.grad is not None
    assert whole.grad[:, 0].all() and not whole.grad[:, 1].any()


def test_batches_that_hold_no_pairs_are_refused_with_the_cure() -> None:
    errors, rewards = tensor([[0.1], [0.3], [0.2], [0.4]]), tensor([0.0, 1.0, 2.0, 3.0])
    anchors, objective = {"fixed": actions(errors)}, DiffusionDpo(beta=1.0)
    with pytest.raises(ValueError, match="a preference needs group_size 2, got 4"):
        objective(actions(errors), anchors, batch_of(errors, group_size=4), rewards)
    with pytest.raises(ValueError, match=r"got anchors \[\]; set trust_region.fixed"):
        objective(actions(errors), {}, batch_of(errors), rewards)
    with pytest.raises(ValueError, match="noised to the same sigmas"):
        objective(actions(errors), anchors, batch_of(errors, sigmas=errors), rewards)
    with pytest.raises(ValueError, match="beta must be a finite number > 0"):
        DiffusionDpo(beta=0.0)
