"""Every policy tells of its finished samples in whole groups, in order, while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmrl.policies.backprop import BackpropPolicy
from mmrl.policies.base import Policy
from mmrl.policies.matching import MatchingPolicy, generated
from mmrl.types import FIRST_TURN, Prompt, Sample
from tests.policies.test_parity import engine_policy
from tests.tiny_latent import latent_policy
from tests.tiny_vlm import noise_prompts, random_policy
from tests.toy_video import PROMPTS, toy_policy

GROUP, SEEDS = 2, [1, 2, 3]
Made = tuple[Policy, Sequence[Prompt]]
VIDEOS = (*PROMPTS, Prompt("up"))


def latent(folder: Path) -> Made:
    policy, prompts = latent_policy(folder)
    return replace(policy, rows=4), prompts


POLICIES: dict[str, Callable[[Path], Made]] = {
    "video": lambda folder: (toy_policy(), VIDEOS),
    "matching": lambda folder: (MatchingPolicy(toy_policy(), generated, 2), VIDEOS),
    "backprop": lambda folder: (
        BackpropPolicy(toy_policy(), lambda videos: torch.zeros(0), 1),
        VIDEOS,
    ),
    "vlm": lambda folder: (replace(random_policy("smolvlm"), rows=4), noise_prompts(folder)),
    "latent_vlm": latent,
    "engine": lambda folder: (engine_policy(0.7), noise_prompts(folder)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_parts_are_the_samples_of_the_rollout(name: str, tmp_path: Path) -> None:
    policy, prompts = POLICIES[name](tmp_path)
    parts: list[Sequence[Sample]] = []
    rollout = policy.rollout(prompts, GROUP, SEEDS, FIRST_TURN, parts.append)
    told = [sample for part in parts for sample in part]
    assert [id(sample) for sample in told] == [id(sample) for sample in rollout.samples]
    assert [len(part) for part in parts] == ([6] if name == "engine" else [4, 2])
    assert [sample.prompt for sample in told] == [p for p in prompts for _ in range(GROUP)]
