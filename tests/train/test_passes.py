"""The two passes of a streamed gradient agree, or the run says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmrl.objectives.prdp import Prdp
from mmrl.policies.video import VideoPolicy
from mmrl.recipe import OptimizerConfig, Recipe, TrainConfig
from mmrl.reward import RewardTable
from mmrl.train.accumulate import Accumulated, Replayed, accumulate
from mmrl.train.loop import initial_state
from mmrl.train.ratio import passes_apart, warn_once
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.types import Actions, Rollout
from tests.toy_video import PROMPTS, toy_policy

SCORES = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64)
CONFIG = TrainConfig(steps=1, prompts_per_step=2, rows=4, optimizer=OptimizerConfig(lr=0.02))


def roll_and_replay(policy: VideoPolicy, passes: int = 2) -> list[Accumulated]:
    """PRDP's passes over one rollout, without an optimizer step in between."""
    recipe = Recipe(
        policy=policy,
        prompts=PROMPTS,
        group_size=2,
        rewards=RewardTable({"none": lambda samples: SCORES}, {"none": 1.0}),
        combine=lambda scores, step: scores["none"],
        advantage=lambda rewards: rewards,
        objective=Prdp(beta=0.5, clip=0.05),
        trust_region=TrustRegion(fixed=FixedAnchor(coefficient=0.0)),
    )
    state, replayed = initial_state(recipe, CONFIG), Replayed()
    rollout = policy.rollout(PROMPTS, 2, [1, 2])
    return [accumulate(recipe, state, rollout, SCORES, replayed, 0) for _ in range(passes)]


@pytest.fixture(autouse=True)
def nothing_was_told() -> None:
    warn_once.cache_clear()


def test_passes_of_the_same_network_are_not_apart(caplog: pytest.LogCaptureFixture) -> None:
    for found in roll_and_replay(toy_policy()):
        assert found.metrics["replay/gap"] == 0.0
    assert not caplog.messages


def test_dropout_puts_the_passes_of_prdp_apart_and_one_warning_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = toy_policy()
    policy.module.append(nn.Dropout(0.5))
    first, second = roll_and_replay(policy)
    assert first.metrics["replay/gap"] == first.metrics["rollout/log_prob_gap"] > 0.01
    assert second.metrics["replay/gap"] > 0.01 and "rollout/log_prob_gap" not in second.metrics
    (line,) = caplog.messages
    assert "more than 1 nat a decision apart" in line and "is dropout on" in line


def shifted(by: float) -> tuple[Actions, Rollout]:
    """The sampler's likelihoods, and the rollout as if they had been `by` lower."""
    rollout = toy_policy().rollout(PROMPTS, 2, [1, 2])
    known = rollout.behavior["denoise"]
    lower = replace(known, log_probs=known.log_probs - by)
    return rollout.behavior, replace(rollout, behavior={"denoise": lower})


def test_the_bound_is_in_nats_of_a_whole_decision(caplog: pytest.LogCaptureFixture) -> None:
    """24 elements: a mean of 0.04 is 0.96 nats, one of 0.05 is 1.2."""
    assert passes_apart(*shifted(0.04)) == pytest.approx(0.04)
    assert not caplog.messages
    assert passes_apart(*shifted(0.05)) == pytest.approx(0.05)
    assert len(caplog.messages) == 1
