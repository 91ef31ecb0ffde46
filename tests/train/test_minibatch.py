"""A rollout in parts: an optimizer step each, groups whole, ratios from before the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from mmrl.config import ConfigError
from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.accumulate import Replayed
from mmrl.train.loop import check_ranks, initial_state, load_config
from mmrl.train.minibatch import minibatches, remember_behavior, weigh_alone
from mmrl.train.optimizer import moved_weights
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import optimize, train_step, weigh_globally
from mmrl.types import Rollout
from tests.tiny import video_config, vlm_config

FAMILIES = ["video", "vlm"]
RANKS = Ranks(Accelerator(cpu=True))


def make(family: str, folder: Path, **train) -> tuple[Recipe, TrainState, TrainConfig]:
    train = {"rows": 2, "prompts_per_step": 4, **train}
    tree = (
        video_config(folder / "run", **train)
        if family == "video"
        else vlm_config(folder / "run", folder / "data", **train)
    )
    config = load_config({**tree, "trust_region": {}})
    recipe = config.build()
    return recipe, initial_state(recipe, config.train), config.train


def roll(recipe: Recipe, state: TrainState) -> tuple[Rollout, torch.Tensor]:
    rollout = recipe.policy.rollout(state.stream.take(4), recipe.group_size, range(4))
    advantages = torch.linspace(-1, 1, len(rollout))
    return weigh_globally(rollout, RANKS), advantages


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_parts_average_to_the_whole_one(family: str, tmp_path: Path) -> None:
    recipe, state, config = make(family, tmp_path, optimizer={"lr": 1e-12, "max_grad_norm": 1e9})
    rollout, advantages = roll(recipe, state)
    found: list[torch.Tensor] = []

    def keep(*_: object) -> None:
        gradients = [weight.grad for weight in moved_weights(state.optimizer)]
        found.append(torch.cat([g.flatten() for g in gradients if g is not None]))

    state.optimizer.register_step_pre_hook(keep)
    optimize(recipe, state, rollout, advantages, Replayed(), config, RANKS)
    parts, replayed = minibatches(rollout, 2), Replayed()
    assert parts == [slice(0, len(rollout) // 2), slice(len(rollout) // 2, len(rollout))]
    for part in parts:
        weighed = weigh_alone(rollout, part, RANKS)
        for kind, weights in weighed.weights.items():
            torch.testing.assert_close(weights[part].sum(), rollout.weights[kind].sum())
        optimize(recipe, state, weighed, advantages, replayed, config, RANKS, part)
    whole, *each = found
    shares = [float(rollout.weights[k][p].sum()) for k in rollout.weights for p in parts]
    mean = sum(share * one for share, one in zip(shares, each, strict=True)) / sum(shares)
    torch.testing.assert_close(mean, whole, atol=1e-6 * float(whole.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_parts_ratio_starts_where_the_rollout_was_sampled(
    family: str, tmp_path: Path
) -> None:
    recipe, state, config = make(family, tmp_path)
    rollout, advantages = roll(recipe, state)
    first, second = minibatches(rollout, 2)
    replayed = Replayed()
    remember_behavior(recipe, rollout, second, config.rows, replayed)
    before = recipe.policy.evaluate(rollout.rows(second))
    for kind, stats in before.items():
        rows = range(second.start, second.stop, config.rows)
        known = torch.cat([replayed.behavior[row][kind].log_probs for row in rows])
        torch.testing.assert_close(known, stats.log_probs)
    on = optimize(recipe, state, rollout, advantages, replayed, config, RANKS, first)
    off = optimize(recipe, state, rollout, advantages, replayed, config, RANKS, second)
    assert on["ratio/deviation"] == 0 < off["ratio/deviation"]


def test_a_step_has_an_update_for_every_pass_and_part(tmp_path: Path) -> None:
    recipe, state, config = make("video", tmp_path, minibatches=2, updates_per_rollout=3)
    train_step(recipe, state, config, RANKS)
    assert state.updates == 6


def test_prompts_that_do_not_spread_over_the_parts_are_refused(tmp_path: Path) -> None:
    _, _, config = make("video", tmp_path, minibatches=3)
    with pytest.raises(ConfigError, match=r"train\.minibatches: 4 prompts a process"):
        check_ranks(config, RANKS)
