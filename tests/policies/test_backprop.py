"""The gradient through the sampler's last steps, against finite differences in float64."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.objectives.score_ascent import ScoreAscent
from mmrl.policies.backprop import BackpropPolicy
from mmrl.recipe import OptimizerConfig, Recipe, TrainConfig
from mmrl.reward import RewardTable
from mmrl.train.accumulate import Replayed, accumulate
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.step import train_step
from mmrl.trust_region.schedule import TrustRegion
from mmrl.trust_region.weights import take_snapshot, trainable, using
from mmrl.types import Prompt, VideoSample
from tests.tiny import shrunk_config
from tests.toy_video import PROMPTS, seeded, toy_policy

RANKS = Ranks(Accelerator(cpu=True))
NUM_STEPS = 4
SEEDS = [1, 2]
STEP = 1e-5


def contrast(samples: Sequence[VideoSample]) -> Tensor:
    """Smooth in every pixel, and another for every prompt."""
    sign = {PROMPTS[0].text: 1.0, PROMPTS[1].text: -2.0}
    return torch.stack(
        [sign[s.prompt.text] * (s.video[1, 0] - s.video[0, 1] ** 2).sum() for s in samples]
    )


def draft(last_steps: int) -> BackpropPolicy:
    return BackpropPolicy(toy_policy(num_steps=NUM_STEPS), contrast, last_steps)


def train_config(steps: int = 1, lr: float = 0.02) -> TrainConfig:
    optimizer = OptimizerConfig(lr=lr)
    return TrainConfig(steps=steps, prompts_per_step=2, rows=4, optimizer=optimizer)


def recipe_of(policy: BackpropPolicy) -> Recipe:
    return Recipe(
        policy=policy,
        prompts=PROMPTS,
        group_size=2,
        rewards=RewardTable({"contrast": contrast}, {"contrast": 1.0}),
        combine=lambda scores, step: scores["contrast"],
        advantage=torch.zeros_like,
        objective=ScoreAscent(),
        trust_region=TrustRegion(),
    )


def gradient(policy: BackpropPolicy) -> dict[str, Tensor]:
    """Of the training loss, as the trainer takes it."""
    recipe = recipe_of(policy)
    state = initial_state(recipe, train_config())
    rollout = policy.rollout(PROMPTS, 2, SEEDS)
    accumulate(recipe, state, rollout, torch.zeros(4), Replayed(), 0)
    return {name: p.grad.clone() for name, p in trainable(policy.module).items()}


@torch.no_grad()
def mean_score(policy: BackpropPolicy, moved: dict[str, Tensor], last_steps: int) -> float:
    """Euler's sampler by hand; the weights `moved` serve in the last steps alone."""
    video = policy.video
    schedule = video.schedule(NUM_STEPS)
    levels = schedule.levels.tolist()
    noise = [torch.randn(2, *video.model.latent_shape, generator=seeded(s)) for s in SEEDS]
    x = torch.cat(noise).double()
    rows = [prompt for prompt in PROMPTS for _ in range(2)]
    told = video.model.encode([prompt.text for prompt in rows])
    for step in range(NUM_STEPS):
        last = step >= NUM_STEPS - last_steps
        with using(policy.module, moved) if last else nullcontext():
            v = video.model.predict(x, 1000 * levels[step], told)
        x = x - (levels[step] - levels[step + 1]) * v
    videos = video.model.decode(x)
    return contrast([VideoSample(p, v) for p, v in zip(rows, videos, strict=True)]).mean().item()


def slope(policy: BackpropPolicy, name: str, index: int, last_steps: int) -> float:
    """(f(w + h) - f(w - h)) / 2h of one weight that is moved in the last steps alone."""
    found = []
    for sign in (1, -1):
        moved = take_snapshot(policy.module)
        moved[name].view(-1)[index] += sign * STEP
        found.append(mean_score(policy, moved, last_steps))
    return (found[0] - found[1]) / (2 * STEP)


@pytest.mark.parametrize("last_steps", [1, 3, NUM_STEPS])
def test_the_gradient_is_the_finite_difference_over_the_last_steps(last_steps: int) -> None:
    """Weights of earlier steps are held, so those steps give nothing."""
    policy = draft(last_steps)
    taken = gradient(policy)
    scale = max(value.abs().max().item() for value in taken.values())
    for name, value in taken.items():
        for index in range(0, value.numel(), max(1, value.numel() // 7)):
            expected = -slope(policy, name, index, last_steps)
            assert value.view(-1)[index].item() == pytest.approx(expected, abs=1e-8 * scale)


def test_more_steps_give_another_gradient() -> None:
    """Else the comparison above would not see which steps are held."""
    one, three = gradient(draft(1)), gradient(draft(3))
    gap = max((one[name] - three[name]).abs().max() for name in one)
    assert gap > 0.05 * max(value.abs().max() for value in one.values())


def test_the_scored_videos_of_a_replay_are_those_of_the_rollout() -> None:
    policy = draft(3)
    rollout = policy.rollout(PROMPTS, 2, SEEDS)
    scores = policy.evaluate(rollout)["denoise"].log_probs[:, 0]
    torch.testing.assert_close(scores, contrast(rollout.samples), rtol=1e-12, atol=0)


def test_cutting_the_rows_leaves_the_gradient() -> None:
    policy = draft(2)
    whole = gradient(policy)
    policy.module.zero_grad()
    recipe = recipe_of(policy)
    state = initial_state(recipe, train_config())
    rollout = policy.rollout(PROMPTS, 2, SEEDS)
    for part in (slice(0, 2), slice(2, 4)):
        accumulate(recipe, state, rollout.rows(part), torch.zeros(2), Replayed(), part.start)
    for name, p in trainable(policy.module).items():
        torch.testing.assert_close(p.grad, whole[name], rtol=1e-10, atol=1e-13)


def test_training_raises_the_score() -> None:
    recipe = recipe_of(draft(2))
    config = train_config()
    state = initial_state(recipe, config)
    scores = [train_step(recipe, state, config, RANKS)["score"] for _ in range(15)]
    assert scores[-1] > scores[0] + 0.1


def test_a_sample_that_cannot_be_scored_gives_no_gradient() -> None:
    """NaN for one prompt: the gradient is half of the other one's alone."""
    policy = draft(1)
    policy.score = lambda samples: torch.where(
        torch.tensor([s.prompt == PROMPTS[0] for s in samples]), torch.nan, contrast(samples)
    )
    taken = gradient(policy)
    policy.module.zero_grad()
    rollout = policy.rollout(PROMPTS, 2, SEEDS).rows(slice(2, 4))
    expected = -policy.evaluate(rollout)["denoise"].log_probs.sum() / 4
    expected.backward()
    for name, p in trainable(policy.module).items():
        torch.testing.assert_close(taken[name], p.grad, rtol=1e-10, atol=1e-13)


def test_a_trained_reward_without_a_gradient_is_named_before_anything_runs(tmp_path: Path) -> None:
    weights = "rewards.clip_score.weight=0.5"
    with pytest.raises(ConfigError, match=r"rewards\.clip_score: is not differentiable"):
        load_config(shrunk_config("draft_k", tmp_path, weights)).build()


def test_a_watched_reward_needs_no_gradient() -> None:
    """Its weight is 0: it stays out of the sum."""
    table = RewardTable.parse(
        {"smoothness": {"weight": 2.0}, "clip_score": {"weight": 0.0, "model": "nowhere"}}
    )
    video = torch.rand(4, 3, 2, 2, generator=seeded(0))
    samples = [VideoSample(Prompt("left"), video)]
    expected = 2 * table.rewards["smoothness"](samples)
    torch.testing.assert_close(table.differentiable(samples), expected)


def test_a_trained_reward_of_a_function_is_named() -> None:
    table = RewardTable({"contrast": contrast}, {"contrast": 1.0})
    with pytest.raises(ConfigError, match=r"rewards\.contrast: is not differentiable"):
        table.differentiable([VideoSample(PROMPTS[0], torch.zeros(2, 3, 2, 2))])


def test_more_last_steps_than_there_are_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="last_steps: there are 4 steps"):
        load_config(shrunk_config("draft_k", tmp_path, "last_steps=5")).build()


def test_an_anchor_has_no_kl_to_give_to_a_rewards_gradient(tmp_path: Path) -> None:
    anchor = "trust_region.fixed.coefficient=0.1"
    with pytest.raises(ConfigError, match="trust_region: a reward's gradient has no KL"):
        load_config(shrunk_config("draft_k", tmp_path, anchor)).build()
