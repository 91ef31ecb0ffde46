"""Temporal smoothness: does motion stay even from frame to frame?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample

PIECE = 32
"""Second differences that are held at once: a long video would take three times its memory."""


@rewards.register("smoothness")
class Smoothness(RewardConfig):
    """exp(-jerk / tolerance): 1 for constant motion, toward 0 for flicker.

    Jerk is the mean |x[f+1] - 2 x[f] + x[f-1]| over pixels, in RGB units of [0, 1]. A video of
    fewer than three frames has no jerk to measure and scores NaN.
    """

    reads_prompt: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    tolerance: float = Field(default=0.05, gt=0)

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        jerks = torch.stack([jerk(sample.video) for sample in samples])
        return torch.exp(-jerks / self.tolerance)


def jerk(video: Float[Tensor, "F 3 H W"]) -> Float[Tensor, ""]:
    """Mean |x[f+1] - 2 x[f] + x[f-1]|, a piece of the video at a time; NaN below three frames."""
    if len(video) <= PIECE + 2:
        return video.diff(n=2, dim=0).abs().mean()
    starts = range(0, len(video) - 2, PIECE)
    sums = [video[start : start + PIECE + 2].diff(n=2, dim=0).abs().sum() for start in starts]
    return torch.stack(sums).sum() / video[2:].numel()
