"""Does the picture's foreground drift the way the prompt says?"""

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

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Unit steps (rows, columns); rows grow downward."""


@rewards.register("motion_direction")
class MotionDirection(RewardConfig):
    """Cosine between the foreground's drift and the prompt's direction, times min(1, drift / full).

    Drift is the slope of a straight line through the centroids of all frames, times the time from
    first to last, in sides of the frame. Nothing in view moves nowhere and scores 0. A prompt that
    names no direction or several, and a video of one frame, score NaN.
    """

    differentiable: ClassVar[bool] = True
    full: float = Field(default=0.25, gt=0)
    """Drift, in sides of the frame, that earns the whole cosine."""

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.stack([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> Float[Tensor, ""]:
        words = sample.prompt.text.lower().split()
        named = [DIRECTIONS[word] for word in words if word in DIRECTIONS]
        if len(named) != 1 or len(sample.video) < 2:
            return torch.tensor(torch.nan)
        moved = drift(sample.video)
        length = moved.norm()
        cosine = moved @ torch.tensor(named[0], dtype=moved.dtype) / length.clamp(min=1e-8)
        return cosine * (length / self.full).clamp(max=1)


def drift(video: Float[Tensor, "F 3 H W"]) -> Float[Tensor, 2]:
    """Movement of the foreground's centroid (rows, columns) over the clip, in sides of the frame.

    Foreground is what differs from the frame's median colour by more than a quarter of the
    frame's largest difference, so that faint noise does not pull the centroid to the middle.
    """
    _, _, height, width = video.shape
    background = video.flatten(2).median(dim=2).values[:, :, None, None]
    distance = (video - background).abs().sum(1)
    weight = (distance - 0.25 * distance.amax((1, 2), keepdim=True)).clamp(min=0)
    mass = weight.sum((1, 2))
    if bool((mass < 1e-6).any()):
        return torch.zeros(2)
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    centroids = torch.stack(
        [(weight.sum(2) @ rows) / mass, (weight.sum(1) @ columns) / mass], dim=1
    )
    time = torch.linspace(-0.5, 0.5, len(video))
    return (time[:, None] * centroids).sum(0) / time.square().sum()
