"""A step scores finished parts of its rollout while the rest is sampled, and learns the same."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from accelerate import Accelerator

from benchmarks.prefetch import AtTheEnd
from mmrl.advantages import group_normalized
from mmrl.objectives.reinforce import Reinforce
from mmrl.policies.video import VideoPolicy
from mmrl.recipe import OptimizerConfig, Recipe, TrainConfig
from mmrl.reward import FaultPolicy, RewardConfig, RewardTable, RewardUnavailable
from mmrl.train.loop import initial_state
from mmrl.train.ranks import Ranks
from mmrl.train.step import train_step
from mmrl.trust_region.schedule import TrustRegion
from mmrl.trust_region.weights import trainable
from mmrl.types import VideoSample
from tests.toy_video import PROMPTS, toy_policy

RANKS = Ranks(Accelerator(cpu=True))
GROUP, STEPS, PATIENCE_S = 4, 3, 20.0
CONFIG = TrainConfig(
    steps=STEPS, prompts_per_step=2, rows=GROUP, optimizer=OptimizerConfig(lr=0.01)
)
QUICK = FaultPolicy(backoff_s=0.0, breaker_after=1000, budget=1.0)


def brightness(samples: Sequence[VideoSample]) -> torch.Tensor:
    return torch.stack([sample.video.mean() for sample in samples])


def unreliable() -> RewardConfig:
    """Brightness of one video; which calls fail, and how, hangs on the video alone."""
    attempts: Counter[int] = Counter()

    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            await asyncio.sleep(0)
            kind = int(sample.video.sum().item() * 1e6)
            attempts[kind] += 1
            if kind % 4 == 0 or (kind % 4 == 1 and attempts[kind] == 1):
                raise RewardUnavailable("away")
            return None if kind % 4 == 2 else sample.video.mean()

    return Judge()


def recipe_of(reward: RewardConfig, *, at_the_end: bool = False) -> Recipe:
    """One part a prompt."""
    policy = replace(toy_policy(), rows=GROUP)
    if at_the_end:
        policy.__class__ = AtTheEnd
    return Recipe(
        policy=policy,
        prompts=PROMPTS,
        group_size=GROUP,
        rewards=RewardTable(
            {"judge": reward, "brightness": brightness},
            {"judge": 1.0, "brightness": 0.0},
            {"judge": QUICK},
        ),
        combine=lambda scores, step: scores["judge"],
        advantage=group_normalized,
        objective=Reinforce(),
        trust_region=TrustRegion(),
    )


def trained(recipe: Recipe) -> tuple[list[dict[str, float]], Mapping[str, torch.Tensor]]:
    """Metrics of every step but the clock's, and the weights."""
    state = initial_state(recipe, CONFIG)
    steps = [train_step(recipe, state, CONFIG, RANKS) for _ in range(STEPS)]
    kept = [{k: v for k, v in step.items() if not k.startswith("time/")} for step in steps]
    return kept, trainable(recipe.policy.module)


def before_part(recipe: Recipe, number: int, act) -> None:
    """Call `act` when the prompts of a later part are encoded."""
    assert isinstance(recipe.policy, VideoPolicy)
    encode, calls = recipe.policy.model.encode, []

    def encode_and_act(texts: Sequence[str]):
        calls.append(texts)
        if len(calls) == number:
            act()
        return encode(texts)

    recipe.policy.model.encode = encode_and_act  # pyright: ignore[reportAttributeAccessIssue]


def test_a_step_with_faults_is_the_step_that_scores_at_the_end() -> None:
    early, early_weights = trained(recipe_of(unreliable()))
    late, late_weights = trained(recipe_of(unreliable(), at_the_end=True))
    assert sum(step.get("reward/judge/unavailable", 0) for step in early) > 0
    assert sum(step.get("reward/judge/retries", 0) for step in early) > 0
    assert str(early) == str(late)
    assert all(torch.equal(early_weights[name], late_weights[name]) for name in late_weights)


def test_the_first_part_is_scored_before_the_second_is_sampled() -> None:
    called, seen_in_time = threading.Event(), []

    class Judge(RewardConfig):
        unit: ClassVar[str] = "group"

        async def __call__(self, group):
            called.set()
            return brightness(group)

    recipe = recipe_of(Judge())
    before_part(recipe, 2, lambda: seen_in_time.append(called.wait(PATIENCE_S)))
    train_step(recipe, initial_state(recipe, CONFIG), CONFIG, RANKS)
    assert seen_in_time == [True]


def test_an_error_while_sampling_cancels_the_calls_under_way() -> None:
    called, cancelled = threading.Event(), threading.Event()

    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            called.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    def fail() -> None:
        assert called.wait(PATIENCE_S)
        raise MemoryError("no room for the second part")

    recipe = recipe_of(Judge())
    before_part(recipe, 2, fail)
    with pytest.raises(MemoryError, match="no room"):
        train_step(recipe, initial_state(recipe, CONFIG), CONFIG, RANKS)
    assert cancelled.wait(PATIENCE_S)
