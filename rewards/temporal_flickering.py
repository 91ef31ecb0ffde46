"""VBench's temporal flickering: how alike are neighbouring frames?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.video import quantize
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("temporal_flickering")
class TemporalFlickering(RewardConfig):
    """(255 - mean |f[t] - f[t+1]|) / 255 on 8-bit pixels, in [0, 1] (VBench, arXiv:2311.17982).

    1 for a still picture: meant for prompts of scenes that stand still. A video of one frame, and
    pixels that are not finite, score NaN.
    """

    reads_prompt: ClassVar[bool] = False

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample.video) for sample in samples], dtype=torch.float64)

    def _score(self, video: Float[Tensor, "F 3 H W"]) -> float:
        if len(video) < 2:
            return math.nan
        frames = (quantize(frame[None]).double() for frame in video)
        gaps = [(after - before).abs().mean().item() for before, after in pairwise(frames)]
        return (255 - fmean(gaps)) / 255
