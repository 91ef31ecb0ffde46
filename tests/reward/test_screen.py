"""What no reward of pixels judges: broken videos, empty prompts, values of another range."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import torch

from mmrl.reward import Scorer, load_reward, rewards
from mmrl.reward.base import RewardConfig, as_reward_class
from mmrl.reward.faults import FaultPolicy
from mmrl.reward.screen import sound_video
from mmrl.types import Prompt, VideoSample

SOUND = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BLIND = ("clip_score", "pick_score", "hps", "image_reward", "clip_adapter", "conse_alignment")
"""Scores of how well pictures fit a text; the judges and hpsv3 are among `video_rewards` too."""


def with_pixel(value: float) -> torch.Tensor:
    video = SOUND.clone()
    video[2, 1, 3, 3] = value
    return video


def sample(video: torch.Tensor, text: str = "a red three moving left") -> VideoSample:
    return VideoSample(Prompt(text), video)


def unchecked(video: torch.Tensor) -> VideoSample:
    """A sample as it is without the type checks of the tests."""
    made = object.__new__(VideoSample)
    for name, value in {"prompt": Prompt("a red three"), "video": video, "fps": 8.0}.items():
        object.__setattr__(made, name, value)
    return made


def video_rewards() -> list[str]:
    """Names of all rewards whose call says that it takes videos."""
    found = []
    for name in rewards.names():
        call = as_reward_class(rewards.get(name)).__call__
        hints = [str(hint) for key, hint in call.__annotations__.items() if key != "return"]
        if any("VideoSample" in hint or "[Sample]" in hint for hint in hints):
            found.append(name)
    return found


def scores(reward: RewardConfig, samples: list[VideoSample]) -> torch.Tensor:
    found: Any = reward(samples)
    return torch.as_tensor(asyncio.run(found) if inspect.iscoroutine(found) else found)


def test_the_rewards_of_videos_are_the_ones_that_are_meant() -> None:
    assert {*BLIND, "remote", "vlm_judge", "vmaf", "smoothness", "hpsv3"} <= set(video_rewards())


@pytest.mark.parametrize("name", video_rewards())
def test_no_reward_scores_broken_videos_and_none_loads_its_model_for_them(name: str) -> None:
    """Nothing of the reward is set: it would fail, were it called."""
    reward = as_reward_class(rewards.get(name)).model_construct()
    broken = [with_pixel(torch.nan), with_pixel(torch.inf), SOUND * torch.nan, SOUND[:0]]
    found = scores(reward, [sample(video) for video in broken])
    assert found.shape == (4,) and found.isnan().all()
    assert scores(reward, []).shape == (0,)


@pytest.mark.parametrize("name", [*BLIND, "hpsv3", "unified_reward"])
def test_a_blank_prompt_has_no_alignment(name: str) -> None:
    reward = as_reward_class(rewards.get(name)).model_construct()
    found = scores(reward, [sample(SOUND, text) for text in ("", "   ", "\n\t")])
    assert found.isnan().all()


def test_the_sound_samples_of_a_batch_have_the_scores_they_have_alone() -> None:
    reward = load_reward("clip_score", model="assets/tiny-clip")
    good = [sample(SOUND), sample(SOUND.flip(0), "a blue seven")]
    alone = reward(good)
    found = reward([sample(with_pixel(torch.nan)), good[0], sample(SOUND, " "), good[1]])
    assert found.isnan().tolist() == [True, False, True, False]
    assert torch.equal(found[[1, 3]], alone)


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        (SOUND * 255, r"pixels in \[0, 1\], got .* to 25\d"),
        (SOUND * 2 - 1, r"pixels in \[0, 1\], got -0\.99"),
        ((SOUND * 255).to(torch.uint8), "floats"),
        (torch.rand(4, 4, 16, 16), r"3, height, width\), got \(4, 4, 16, 16\)"),
        (torch.rand(4, 16, 16, 3), r"got \(4, 16, 16, 3\)"),
        (torch.rand(3, 16, 16), r"got \(3, 16, 16\)"),
    ],
)
@pytest.mark.parametrize("name", ["smoothness", "jpeg_size", "motion_direction", "remote"])
def test_what_is_no_video_in_0_to_1_is_refused_with_what_it_is(
    name: str, video: torch.Tensor, reason: str
) -> None:
    reward = as_reward_class(rewards.get(name)).model_construct()
    with pytest.raises(ValueError, match=reason):
        scores(reward, [unchecked(video)])


def test_in_a_table_a_wrong_range_is_an_error_of_its_own_sample() -> None:
    judge = Scorer("smoothness", load_reward("smoothness"), FaultPolicy(retries=0, budget=1))
    found = judge.score([sample(SOUND), sample(SOUND * 255), sample(with_pixel(torch.nan))])
    assert found.statuses == ("ok", "error", "abstained")
    assert "expected pixels in [0, 1]" in found.reasons[1]


def test_values_that_rounding_put_outside_are_clamped_and_others_are_not_touched() -> None:
    assert sound_video(SOUND) is SOUND
    low, high = with_pixel(-5e-4), with_pixel(1 + 5e-4)
    for video, bound in ((low, 0.0), (high, 1.0)):
        found = sound_video(video)
        assert found is not None and torch.equal(found, with_pixel(bound))


def test_gradients_pass_and_a_broken_neighbour_takes_none() -> None:
    good, bad = SOUND.clone().requires_grad_(), with_pixel(torch.nan).requires_grad_()
    found = load_reward("smoothness")([sample(bad), sample(good)])
    found[1].backward()
    assert good.grad is not None and good.grad.abs().sum() > 0
    assert bad.grad is None
