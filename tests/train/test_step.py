"""The spine: on-policy exactness, micro-batches, anchors and clocks, refused gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from mmrl.data.prompts import PromptStream
from mmrl.policies.answers import Weighting, shares
from mmrl.recipe import Recipe, TrainConfig
from mmrl.reward import RewardTable
from mmrl.train.accumulate import Replayed, accumulate
from mmrl.train.loop import initial_state, load_config
from mmrl.train.minibatch import weigh_alone
from mmrl.train.optimizer import moved_weights
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import (
    DivergedError,
    lr_share,
    overlong,
    train_step,
    update,
    weigh_globally,
    without,
)
from mmrl.trust_region.weights import trainable
from mmrl.types import Rollout
from tests.tiny import video_config, vlm_config

FAMILIES = ["video", "vlm"]
RANKS = Ranks(Accelerator(cpu=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def make(family: str, folder: Path, **train) -> tuple[Recipe, TrainState, object]:
    tree = (
        video_config(folder, **train)
        if family == "video"
        else vlm_config(folder, folder / "data", **train)
    )
    config = load_config(tree)
    recipe = config.build()
    return recipe, initial_state(recipe, config.train), config.train


def roll(recipe: Recipe, state: TrainState, prompts: int = 2) -> Rollout:
    seeds = list(range(prompts))
    return recipe.policy.rollout(state.stream.take(prompts), recipe.group_size, seeds)


def gradients(recipe: Recipe) -> dict[str, torch.Tensor]:
    found = {
        name: p.grad.clone()
        for name, p in trainable(recipe.policy.module).items()
        if p.grad is not None
    }
    recipe.policy.module.zero_grad()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_first_update_has_ratio_exactly_1_and_kl_exactly_0(family: str, folder: Path) -> None:
    recipe, state, _ = make(family, folder)
    rollout = roll(recipe, state)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    found = accumulate(recipe, state, rollout, advantages, Replayed(), 0)
    assert found.metrics["ratio/deviation"] == 0.0
    assert found.metrics["clip_fraction"] == 0.0
    assert found.metrics["kl/periodic/" + next(iter(found.current))] == 0.0
    assert found.metrics["kl/stepwise/" + next(iter(found.current))] == 0.0


def test_video_replay_repeats_the_sampler_bit_for_bit(folder: Path) -> None:
    recipe, state, _ = make("video", folder)
    rollout = roll(recipe, state)
    replayed = recipe.policy.evaluate(rollout)["denoise"]
    assert torch.equal(replayed.log_probs, rollout.behavior["denoise"].log_probs)
    assert torch.equal(replayed.mean, rollout.behavior["denoise"].mean)


def test_vlm_replay_is_within_float32_of_the_sampler(folder: Path) -> None:
    recipe, state, _ = make("vlm", folder)
    rollout = roll(recipe, state)
    replayed = recipe.policy.evaluate(rollout)["token"].log_probs
    live = rollout.weights["token"] > 0
    gap = (replayed - rollout.behavior["token"].log_probs)[live].abs().max()
    assert gap < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_cutting_a_batch_leaves_the_gradient(family: str, folder: Path) -> None:
    recipe, state, _ = make(family, folder)
    rollout = roll(recipe, state)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    accumulate(recipe, state, rollout, advantages, Replayed(), 0)
    whole = gradients(recipe)
    for part in (slice(0, 2), slice(2, 4)):
        accumulate(recipe, state, rollout.rows(part), advantages[part], Replayed(), part.start)
    cut = gradients(recipe)
    assert whole.keys() == cut.keys()
    scale = max(value.abs().max() for value in whole.values())
    for name in whole:
        torch.testing.assert_close(cut[name] / scale, whole[name] / scale, atol=2e-5, rtol=1e-4)


def test_a_kl_between_different_policies_pulls_on_the_weights(folder: Path) -> None:
    """Guards against a penalty computed where no gradient flows."""
    recipe, state, _ = make("video", folder)
    rollout = roll(recipe, state)
    with torch.no_grad():
        for p in trainable(recipe.policy.module).values():
            p.add_(1e-3 * torch.randn_like(p, generator=None).sign())
    found = accumulate(recipe, state, rollout, torch.zeros(4), Replayed(), 0)
    assert found.metrics["kl/periodic/denoise"] > 0
    assert max(value.abs().max() for value in gradients(recipe).values()) > 0


def test_known_stepwise_likelihoods_equal_a_fresh_forward(folder: Path) -> None:
    """The second pass over a rollout takes them from the first pass instead of a forward."""
    recipe, state, config = make("video", folder)
    rollout = roll(recipe, state)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    replayed = Replayed()
    first = accumulate(recipe, state, rollout, advantages, replayed, 0)
    replayed.latest, replayed.latest_at = {0: first.current}, state.updates
    update(recipe, state, config, RANKS, first.metrics, 4)
    reused = accumulate(recipe, state, rollout, advantages, replayed, 0)
    fresh = replace(replayed, latest={})
    computed = accumulate(recipe, state, rollout, advantages, fresh, 0)
    assert reused.metrics["kl/stepwise/denoise"] > 0
    assert reused.metrics == computed.metrics


def test_anchors_and_controllers_move_by_optimizer_steps(folder: Path) -> None:
    """Two updates a rollout, refresh every three: versions 0 1 2 after 2, 4 and 6 updates."""
    recipe, state, config = make("video", folder, steps=3)
    versions, coefficients = [], []
    for _ in range(3):
        metrics = train_step(recipe, state, config, RANKS)
        versions.append(state.anchors["periodic"].version)
        coefficients.append(state.controllers["periodic/denoise"].value)
        assert metrics["rollout/log_prob_gap"] == 0.0
    assert versions == [0, 1, 2]
    assert state.updates == 6
    assert len(set(coefficients)) == 3


def test_the_stepwise_anchor_holds_the_weights_of_one_step_ago(folder: Path) -> None:
    recipe, state, config = make("video", folder, updates_per_rollout=1)
    train_step(recipe, state, config, RANKS)
    name, p = next(iter(trainable(recipe.policy.module).items()))
    before = p.detach().clone()
    train_step(recipe, state, config, RANKS)
    assert torch.equal(state.anchors["stepwise"].weights[name], before)
    assert not torch.equal(p.detach(), before)


def test_a_gradient_that_is_not_finite_moves_no_clock(folder: Path) -> None:
    recipe, state, config = make("video", folder)
    weights = trainable(recipe.policy.module)
    before = {name: p.detach().clone() for name, p in weights.items()}
    for p in weights.values():
        p.grad = torch.full_like(p, torch.nan)
    found = update(recipe, state, config, RANKS, {"kl/periodic/denoise": 1.0}, 4)
    assert found["skipped_update"] == 1.0
    assert state.updates == 0
    assert state.controllers == {}
    assert state.anchors["stepwise"].version == 0
    assert all(torch.equal(before[name], p) for name, p in weights.items())


def test_three_refused_gradients_in_a_row_end_the_run(folder: Path) -> None:
    recipe, state, config = make("video", folder)
    weights = trainable(recipe.policy.module)

    def refused(value: float) -> float:
        for p in weights.values():
            p.grad = torch.full_like(p, value)
        return update(recipe, state, config, RANKS, {}, 4)["skipped_update"]

    assert [refused(value) for value in (torch.nan, torch.nan, 0.0, torch.inf, torch.nan)] == [
        *(1.0, 1.0, 0.0, 1.0, 1.0)
    ]
    with pytest.raises(DivergedError, match="3 updates in a row"):
        refused(torch.nan)


def test_an_unscored_sample_trains_nothing_and_is_counted(folder: Path) -> None:
    recipe, state, config = make("video", folder)
    dropped = recipe.rewards.rewards["motion_direction"]

    class Flaky:
        def __call__(self, samples):
            scores = dropped(samples)
            scores[0] = torch.nan
            return scores

    flaky = {**recipe.rewards.rewards, "motion_direction": Flaky()}
    recipe = replace(recipe, rewards=RewardTable(flaky, recipe.rewards.weights))
    metrics = train_step(recipe, state, config, RANKS)
    assert metrics["reward/motion_direction/missing"] == 2.0  # and the other of its group of 2,
    assert metrics["reward/motion_direction/short_group"] == 1.0  # which has nothing left beside it
    assert torch.isfinite(torch.tensor(metrics["grad_norm"]))
    assert metrics["skipped_update"] == 0.0


def test_answers_that_were_cut_off_leave_the_loss_and_the_others_carry_it_alone(
    folder: Path,
) -> None:
    recipe, state, _ = make("vlm", folder)
    rollout = roll(recipe, state)
    samples = [replace(s, finished=index != 1) for index, s in enumerate(rollout.samples)]  # type: ignore[type-var]
    cut = overlong(replace(rollout, samples=samples))
    assert cut.tolist() == [False, True, False, False]
    kept = without(rollout, cut)
    assert kept.weights["token"][1].sum() == 0 and kept.counts["token"].tolist() == [1, 0, 1, 1]
    rows = kept.weights["token"].sum(1)
    assert rows[[0, 2, 3]].tolist() == pytest.approx([1 / 3] * 3)
    nothing = without(rollout, torch.ones(4, dtype=torch.bool))
    assert nothing.weights["token"].sum() == 0 == nothing.counts["token"].sum()


@pytest.mark.parametrize("weighting", ["sequence", "decision", "length"])
def test_rows_that_stay_weigh_as_if_the_others_had_never_been(
    weighting: Weighting, folder: Path
) -> None:
    recipe, state, _ = make("vlm", folder)
    rollout = roll(recipe, state)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    weights, counts = shares(mask, weighting, 5)
    ragged = replace(rollout, weights={"token": weights}, counts={"token": counts})
    kept = without(ragged, torch.tensor([False, True, False, False]))
    alone, _ = shares(mask[[0, 2, 3]], weighting, 5)
    torch.testing.assert_close(kept.weights["token"][[0, 2, 3]], alone)
    half, _ = shares(mask[:2], weighting, 5)
    part = slice(0, 2)
    torch.testing.assert_close(weigh_alone(ragged, part, RANKS).weights["token"][part], half)


def test_a_step_whose_every_answer_is_cut_off_changes_nothing(folder: Path) -> None:
    recipe, state, config = make("vlm", folder)
    recipe.policy.max_new_tokens = 1  # type: ignore[attr-defined]
    before = {name: p.clone() for name, p in trainable(recipe.policy.module).items()}
    metrics = train_step(replace(recipe, drop_overlong=True), state, config, RANKS)
    assert metrics["rollout/overlong"] == 4 and metrics["loss"] == 0 and metrics["grad_norm"] == 0
    live = trainable(recipe.policy.module)
    assert all(torch.equal(before[name], live[name]) for name in before)


def test_weights_of_all_ranks_add_to_one_mean(folder: Path) -> None:
    recipe, state, _ = make("vlm", folder)
    rollout = weigh_globally(roll(recipe, state), RANKS)
    assert rollout.weights["token"].sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("decay", "shares"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_warms_up_then_falls_over_all_optimizer_steps(
    decay: str, shares: list[float]
) -> None:
    """Two rollouts of two updates, a warm-up of two."""
    optimizer = {"lr": 1.0, "warmup_steps": 2, "decay": decay}
    config = TrainConfig.model_validate(
        {"steps": 2, "prompts_per_step": 1, "rows": 2, "updates_per_rollout": 2}
        | {"optimizer": optimizer}
    )
    found = [lr_share(config, updates) for updates in range(4)]
    assert found == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_all_prompts_of_a_rollout_are_in_one_optimizer_step(rows: int, folder: Path) -> None:
    """Four prompts, two samples each: one step, whatever one forward pass holds."""
    train = {"prompts_per_step": 4, "rows": rows, "updates_per_rollout": 1}
    recipe, state, config = make("video", folder, **train)
    train_step(recipe, state, config, RANKS)
    assert state.updates == 1
    assert {int(s["step"]) for s in state.optimizer.state.values()} == {1}


def test_a_prompt_has_other_seeds_in_every_rollout_and_a_run_the_same_again(folder: Path) -> None:
    """Both prompts are drawn every time, by weights that do not move."""

    def shown() -> list[torch.Tensor]:
        recipe, state, config = make("video", folder, optimizer={"lr": 1e-30})
        prompts = recipe.prompts[:2]
        state.stream = PromptStream(prompts, 0)
        seen: list[torch.Tensor] = []

        def recorder(samples):
            order = sorted(samples, key=lambda sample: sample.prompt.text)
            seen.append(torch.stack([sample.video for sample in order]))
            return torch.arange(float(len(samples)))

        table = RewardTable({"recorder": recorder}, {"recorder": 1.0})
        combine = lambda scores, step: scores["recorder"]  # noqa: E731
        recipe = replace(recipe, prompts=prompts, rewards=table, combine=combine)
        for _ in range(2):
            train_step(recipe, state, config, RANKS)
        return seen

    first, second = shown()
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(first, second, strict=True))
    again = shown()
    assert torch.equal(again[0], first) and torch.equal(again[1], second)


def test_the_first_step_is_adamws_own(folder: Path) -> None:
    """m / sqrt(v) is the gradient's sign at step 1; a weight decays by lr * weight_decay."""
    optimizer = {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-30, "max_grad_norm": 1e9}
    recipe, state, config = make("video", folder, optimizer=optimizer)
    weights = trainable(recipe.policy.module)
    before = {name: p.detach().clone() for name, p in weights.items()}
    for index, p in enumerate(weights.values()):
        p.grad = torch.full_like(p, 0.5 if index % 2 else -0.5)
    update(recipe, state, config, RANKS, {}, 4)
    for index, (name, p) in enumerate(weights.items()):
        expected = before[name] * (1 - 1e-4) - 1e-3 * (1 if index % 2 else -1)
        torch.testing.assert_close(p.detach(), expected, atol=1e-7, rtol=1e-5, msg=name)


def test_a_rollout_is_left_where_the_policy_has_moved_too_far_from_its_sampler(
    folder: Path,
) -> None:
    """The update that would go further is not taken, and no clock moves for it."""
    recipe, state, config = make("video", folder, updates_per_rollout=5, optimizer={"lr": 1e-2})
    free = train_step(recipe, state, config, RANKS)
    assert free["updates"] == state.updates == 5
    assert free["ratio/kl"] > 1e-6
    recipe, state, config = make(
        "video", folder, updates_per_rollout=5, optimizer={"lr": 1e-2}, stop_kl=1e-6
    )
    held = train_step(recipe, state, config, RANKS)
    assert held["updates"] == state.updates + 1 == 2
    assert held["stopped_by_kl"] == 0.5
    assert all(weight.grad is None for weight in moved_weights(state.optimizer))
