"""DiffusionNFT: reference numbers, the direction of its pull, anchors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.objectives.nft import Nft, nft_loss
from mmrl.types import Actions, ActionStats
from tests.objectives.batches import NoisedReplay, PlainReplay, denoise_batch

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())
OPTIONS = {"beta": 0.5, "advantage_clip": 5.0}


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def actions(velocity: torch.Tensor) -> Actions:
    return {"denoise": ActionStats(torch.zeros_like(velocity[..., 0]), velocity)}


def slope(current: list, old: list, target: list, advantage: float, **options) -> list[float]:
    """d loss / d velocity of one decision at sigma 0.8."""
    leaf = tensor([[current]]).requires_grad_(True)
    one = torch.ones((1, 1), dtype=torch.float64)
    loss, _ = nft_loss(
        leaf, tensor([[old]]), tensor([[target]]), 0.8 * one, tensor([advantage]), one, **options
    )
    (found,) = torch.autograd.grad(loss, leaf)
    return found.flatten().tolist()


@pytest.mark.parametrize("case", GOLDEN["baselines"]["diffusion_nft"])
def test_loss_and_its_two_sides_equal_the_reference(case: dict) -> None:
    target = tensor([[case["noise"]]]) - tensor([[case["x0"]]])
    one = torch.ones((1, 1), dtype=torch.float64)
    loss, metrics = nft_loss(
        tensor([[case["v"]]]),
        tensor([[case["v_old"]]]),
        target,
        case["t"] * one,
        tensor([case["adv"]]),
        one,
        beta=case["beta"],
        advantage_clip=case["adv_max"],
    )
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    assert metrics["toward"] == pytest.approx(case["loss_pos"], rel=1e-9)
    assert metrics["away"] == pytest.approx(case["loss_neg"], rel=1e-9)
    assert metrics["good_share"] == pytest.approx(case["r"], rel=1e-9)


def test_from_the_old_velocity_the_step_is_the_advantage_times_the_matching_slope() -> None:
    """(2p - 1) sigma 2 e / (D mean|e|) c, e = (0.3, -0.1), c = 5, A = 2: p = 0.7."""
    found = slope([0.3, 0.9], [0.3, 0.9], [0.0, 1.0], 2.0, **OPTIONS)
    factor = 5 * 0.4 * 0.8 * 2 / (2 * 0.2)
    assert found == pytest.approx([factor * 0.3, factor * -0.1], rel=1e-9)


def test_good_samples_pull_bad_ones_push_and_an_advantage_of_zero_holds() -> None:
    good, bad, even = (slope([0.3], [0.3], [0.0], a, **OPTIONS) for a in (3.0, -3.0, 0.0))
    assert good[0] > 0 > bad[0]
    assert bad[0] == pytest.approx(-good[0])
    assert even == [0]
    assert slope([0.4], [0.3], [0.3], 0.0, **OPTIONS)[0] > 0


def test_advantages_beyond_the_clip_count_as_the_clip() -> None:
    at, beyond = (slope([0.4], [0.3], [0.0], a, **OPTIONS) for a in (5.0, 50.0))
    assert at == beyond


def test_old_is_the_ema_anchor_or_else_what_sampled() -> None:
    sampled, ema, current = (tensor([[[value]], [[value]]]) for value in (0.1, 0.2, 0.4))
    replay = NoisedReplay(torch.zeros_like(sampled), torch.full((2, 1), 0.5).double())
    batch = denoise_batch(actions(sampled)["denoise"], group_size=2, replay=replay)
    objective, advantages = Nft(**OPTIONS), tensor([1.0, -1.0])
    losses = [
        objective(actions(current), anchors, batch, advantages)[0]
        for anchors in ({}, {"ema": actions(sampled)}, {"ema": actions(ema)})
    ]
    assert losses[0] == losses[1] != losses[2]


def test_micro_batches_add_up_and_dead_decisions_may_hold_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    current, old, target = torch.randn((3, 4, 2, 3), generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    weights = tensor([[0.25, 0.0]] * 4)
    current[:, 1] = math.nan
    replay = NoisedReplay(target, torch.full((4, 2), 0.7).double())
    batch = denoise_batch(actions(old)["denoise"], group_size=2, weights=weights, replay=replay)
    objective = Nft(**OPTIONS)
    grads, losses = [], []
    for cuts in ((slice(0, 4),), (slice(0, 2), slice(2, 4))):
        leaf = current.clone().requires_grad_(True)
        anchors = [{"fixed": actions(old[cut])} for cut in cuts]
        parts = [
            objective(actions(leaf[cut]), anchor, batch.rows(cut), advantages[cut])[0]
            for cut, anchor in zip(cuts, anchors, strict=True)
        ]
        losses.append(torch.stack(parts).sum())
        grads.append(torch.autograd.grad(losses[-1], leaf)[0])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-14)
    assert not grads[0][:, 1].any()
    assert grads[0][:, 0].all()


def test_a_replay_that_was_not_noised_is_refused() -> None:
    table = torch.zeros((2, 1, 1))
    batch = denoise_batch(actions(table)["denoise"], group_size=2, replay=PlainReplay())
    with pytest.raises(ValueError, match="`target` and `sigmas`, got PlainReplay"):
        Nft(**OPTIONS)(actions(table), {}, batch, torch.zeros(2))


@pytest.mark.parametrize("name", ["beta", "advantage_clip"])
def test_settings_are_checked_before_the_run(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0.0"):
        Nft(**{**OPTIONS, name: 0.0})
