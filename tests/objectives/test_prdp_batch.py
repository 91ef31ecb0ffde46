"""PRDP over a batch of prompts: shares, skipped groups, micro-batches, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmrl.objectives.awm import Awm
from mmrl.objectives.clipped import Clip
from mmrl.objectives.diffusion_dpo import DiffusionDpo
from mmrl.objectives.guard import Guard
from mmrl.objectives.nft import Nft
from mmrl.objectives.prdp import Prdp, prdp_loss
from mmrl.objectives.reinforce import Reinforce
from mmrl.ops.gaussian import log_prob
from mmrl.recipe import Objective
from mmrl.types import Actions, ActionStats, Prompt, Rollout
from tests.objectives.batches import denoise_batch

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def actions(log_probs: torch.Tensor) -> Actions:
    return {"denoise": ActionStats(log_probs)}


def random_batch(prompts: int, size: int, steps: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    rows = prompts * size
    tables = 0.2 * torch.randn((3, rows, steps), generator=generator, dtype=torch.float64)
    return *tables, torch.randn(rows, generator=generator, dtype=torch.float64)


def padded(groups: list[dict], key: str, size: int) -> torch.Tensor:
    """Rows of NaN fill groups up to one size: samples that were not scored."""
    rows = []
    for group in groups:
        table = tensor(group[key])
        fill = table.new_full((size - len(table), *table.shape[1:]), math.nan)
        rows.append(torch.cat([table, fill]))
    return torch.cat(rows)


def test_the_batch_loss_is_the_mean_over_prompts_and_a_tied_prompt_counts_as_zero() -> None:
    """The reference divides by the 2 prompts of 3 that own a pair."""
    case = GOLDEN["multi_prompt"]
    current, old, ref, rewards = (
        padded(case["groups"], key, 4) for key in ("logp_cur", "logp_old", "logp_ref", "rewards")
    )
    current.requires_grad_(True)
    objective = Prdp(beta=case["beta"], clip=case["eps"], step_reduction="sum")
    batch = denoise_batch(ActionStats(old), group_size=4)
    loss, metrics = objective(actions(current), {"fixed": actions(ref)}, batch, rewards)
    loss.backward()
    assert loss.item() * 3 / 2 == pytest.approx(case["out"]["loss"], rel=1e-9)
    assert (metrics["skipped_groups"], metrics["pairs"]) == (1, 9)
    expected = padded([{"grad": grad} for grad in case["out"]["grad"]], "grad", 4).nan_to_num()
    assert current.grad is not None
    torch.testing.assert_close(current.grad * 3 / 2, expected, rtol=1e-9, atol=1e-12)


def test_micro_batches_of_whole_groups_add_up() -> None:
    current, old, ref, rewards = random_batch(3, 4, 2)
    rewards[4:8] = 0.0
    objective = Prdp(beta=0.3, clip=0.05)
    batch = denoise_batch(ActionStats(old), group_size=4)
    whole = current.clone().requires_grad_(True)
    loss, metrics = objective(actions(whole), {"fixed": actions(ref)}, batch, rewards)
    loss.backward()
    parts = current.clone().requires_grad_(True)
    sums: dict[str, float] = {}
    total = tensor([0.0])[0]
    for part in (slice(0, 4), slice(4, 12)):
        anchors = {"fixed": actions(ref[part])}
        share, found = objective(actions(parts[part]), anchors, batch.rows(part), rewards[part])
        share.backward()
        total = total + share.detach()
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value
    torch.testing.assert_close(total, loss.detach())
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-14)
    assert sums == pytest.approx(metrics)


def test_steps_of_weight_zero_are_masked_and_a_prompt_without_weight_is_skipped() -> None:
    current, old, ref, rewards = random_batch(2, 3, 2)
    weights = tensor([[0.2, 0.0]] * 3 + [[0.0, 0.0]] * 3)
    current[:, 1] = math.nan
    batch = denoise_batch(ActionStats(old), group_size=3, weights=weights)
    loss, metrics = Prdp(beta=0.3, clip=0.05)(
        actions(current), {"fixed": actions(ref)}, batch, rewards
    )
    new, behavior, reference = (table[:3, :1] for table in (current, old, ref))
    expected, _ = prdp_loss(new, behavior, reference, rewards[:3], beta=0.3, clip=0.05)
    assert loss.item() == pytest.approx(0.6 * expected.item(), rel=1e-12)
    assert metrics["skipped_groups"] == 1


def test_a_batch_without_any_pair_is_zero_with_gradient_zero() -> None:
    current, old, ref, rewards = random_batch(2, 3, 2)
    current.requires_grad_(True)
    batch = denoise_batch(ActionStats(old), group_size=3)
    loss, metrics = Prdp(beta=0.3, clip=0.05)(
        actions(current), {"fixed": actions(ref)}, batch, 0 * rewards
    )
    loss.backward()
    assert (loss.item(), metrics["skipped_groups"]) == (0, 2)
    assert current.grad is not None and not current.grad.any()


def test_of_all_objectives_only_prdp_couples_the_decisions_of_a_path() -> None:
    clip = Clip(1.0, 1.0)
    others: list[Objective] = [
        Reinforce(),
        Guard(clip),
        DiffusionDpo(beta=1.0),
        Nft(beta=1.0, advantage_clip=5.0),
        Awm(clip=clip, power=0.25, advantage_clip=5.0),
    ]
    assert not any(objective.couples_decisions for objective in others)
    prdp: Objective = Prdp(beta=0.3, clip=None)
    assert prdp.couples_decisions


def drawn_batch(dtype: torch.dtype) -> tuple[ActionStats, ActionStats, Rollout]:
    """Groups of 4 on 3 steps of 1024 elements, whose log-probs drift by about 1e-6.

    Values are rounded to float32 before they are read as `dtype`.
    """
    generator = torch.Generator().manual_seed(1)
    shape, std = (256, 3, 1024), 0.2
    origin, noise = torch.randn((2, *shape), generator=generator)
    near, far = torch.randn((2, *shape[:2], 1), generator=generator)
    x = (origin + std * noise).to(dtype)
    now, pretrained = (
        (origin + std * size * noise).to(dtype) for size in (2e-6 * near, 1e-4 * far)
    )
    scale = torch.full(shape[:2], std, dtype=dtype)

    def stats(mean: torch.Tensor) -> ActionStats:
        found = [log_prob(x[:, t], mean[:, t], scale[:, t]) for t in range(3)]
        return ActionStats(torch.stack(found, dim=1), mean, scale)

    batch = denoise_batch(stats(origin.to(dtype)), group_size=4)
    return stats(now), stats(pretrained), replace(batch, drawn={"denoise": x})


def clipped(dtype: torch.dtype, *, drawn: bool = True) -> tuple[dict[str, float], torch.Tensor]:
    """Metrics and gradient at the paper's clip of small runs."""
    current, reference, batch = drawn_batch(dtype)
    batch = batch if drawn else replace(batch, drawn={})
    leaf = current.leaf()
    rewards = torch.randn(256, generator=torch.Generator().manual_seed(2)).to(dtype)
    objective = Prdp(beta=3e-5, clip=1e-6)
    loss, metrics = objective({"denoise": leaf}, {"fixed": {"denoise": reference}}, batch, rewards)
    loss.backward()
    assert leaf.log_probs.grad is not None
    return metrics, leaf.log_probs.grad.double()


def test_float32_means_resolve_a_clip_that_float32_log_probs_do_not() -> None:
    """Log-probs near 0.2 are rounded by 1e-7, a tenth of the clip: masks and gradients are off."""
    exact, slopes = clipped(torch.float64)
    steps = {k: v for k, v in exact.items() if k.startswith("clip_fraction/step_")}
    assert len(steps) == 3 and all(0.1 < share < 0.9 for share in steps.values())
    fine, found = clipped(torch.float32)
    assert {k: fine[k] for k in steps} == pytest.approx(steps)
    torch.testing.assert_close(found, slopes, rtol=1e-4, atol=1e-4 * slopes.abs().max().item())
    _, wrong = clipped(torch.float32, drawn=False)
    assert (wrong - slopes).abs().max() > 1e-2 * slopes.abs().max()


def test_micro_batches_and_steps_cut_the_drawn_states_with_the_rest() -> None:
    _, _, batch = drawn_batch(torch.float64)
    cut = batch.rows(slice(4, 8)).decisions(slice(1, 3))
    assert torch.equal(cut.drawn["denoise"], batch.drawn["denoise"][4:8, 1:3])


def test_the_log_ratio_in_nats_is_that_of_the_whole_path() -> None:
    """Summed over steps and elements, whatever the reduction of the loss."""
    current, reference, batch = drawn_batch(torch.float64)
    expected = 1024 * (current.log_probs - reference.log_probs).sum(1).mean().item()
    rewards = torch.arange(256.0, dtype=torch.float64)
    for reduction in ("mean", "sum"):
        objective = Prdp(beta=0.3, clip=None, step_reduction=reduction)
        anchors: dict[str, Actions] = {"fixed": {"denoise": reference}}
        _, metrics = objective({"denoise": current}, anchors, batch, rewards)
        assert metrics["nats"] == pytest.approx(expected, rel=1e-6)


def refused(batch: Rollout, message: str, anchors: tuple[str, ...] = ("fixed",)) -> None:
    table = batch.behavior["denoise"].log_probs
    others = {name: actions(table) for name in anchors}
    rewards = torch.arange(float(len(batch)), dtype=table.dtype)
    with pytest.raises(ValueError, match=message):
        Prdp(beta=0.3, clip=0.05)(actions(table), others, batch, rewards)


def test_batches_that_prdp_cannot_use_are_refused_with_the_cure() -> None:
    _, old, _, _ = random_batch(2, 3, 2)
    batch = denoise_batch(ActionStats(old), group_size=3)
    refused(batch, r"fixed anchor, got anchors \['ema'\]; set trust_region.fixed", ("ema",))
    refused(batch.rows(slice(0, 5)), "5 rows cut a group of 3")
    refused(replace(batch, scales={"denoise": torch.ones(2)}), "equal weight; switch step scales")
    samples = list(batch.samples)
    samples[4] = replace(samples[4], prompt=Prompt("another"))  # pyright: ignore
    refused(replace(batch, samples=samples), "row 4 has another prompt")
    uneven = tensor([[0.1, 0.1], [0.1, 0.0], [0.1, 0.1]] * 2)
    refused(replace(batch, weights={"denoise": uneven}), "must count the same steps")


def test_a_trained_step_without_noise_is_named() -> None:
    _, old, _, _ = random_batch(2, 3, 2)
    std = tensor([[0.2, 0.1]] * 5 + [[0.2, 1e-10]])
    batch = denoise_batch(ActionStats(old, scale=std), group_size=3)
    refused(batch, "std of step 1 must be >= 0.001, got 1e-10")


@pytest.mark.parametrize(("beta", "clip"), [(0.0, 0.1), (math.inf, 0.1), (1.0, -0.1)])
def test_settings_are_checked_before_the_run(beta: float, clip: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Prdp(beta=beta, clip=clip)
