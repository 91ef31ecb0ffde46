"""Is motion so even that a model can draw every second frame from its neighbors?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from mmrl.models.amt import amt_s
from mmrl.models.place import Device, Place
from mmrl.models.weights import AMT_S
from mmrl.ops.video_scores import interpolation_smoothness
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("motion_smoothness_amt")
class MotionSmoothnessAmt(RewardConfig):
    """(255 - mean |frame - AMT-S of its neighbors|) / 255 over frames 1, 3, 5, ... (VBench).

    1 for a still video; NaN below three frames and where pixels are not finite. AMT's weights are
    CC BY-NC 4.0: not for commercial use. Needs `mmrl data fetch vbench_motion`.
    """

    reads_prompt: ClassVar[bool] = False
    max_side: int | None = Field(default=None, ge=64)
    """Frames are reduced to this longer side first; null for their own size, as VBench does."""
    max_frames: int | None = Field(default=None, ge=3)
    """At most so many frames, from the start; null for all."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.stack([self._score(sample.video) for sample in samples])

    def _score(self, video: Float[Tensor, "F 3 H W"]) -> Float[Tensor, ""]:
        frames = self._frames(video)
        if len(frames) < 3:
            return torch.tensor(torch.nan)
        middle = amt_s(Place.of(self.device))
        drawn = [middle(before, after) for before, after in pairwise(frames[::2])]
        return interpolation_smoothness(frames[1::2][: len(drawn)], torch.stack(drawn))

    def _frames(self, video: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "K 3 h w"]:
        frames = video[: self.max_frames]
        longest = max(frames.shape[-2:])
        if self.max_side is None or longest <= self.max_side:
            return frames
        size = [max(8, round(side * self.max_side / longest)) for side in frames.shape[-2:]]
        return interpolate(frames, size, mode="bilinear", antialias=True)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {
            "model": "AMT-S (CC BY-NC 4.0)",
            **AMT_S.origin(),
            "frames": "all" if self.max_frames is None else f"first {self.max_frames}",
            "scale": "0 to 1",
        }
