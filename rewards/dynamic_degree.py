"""Does a video move? Optical flow by RAFT, against a threshold or as it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from mmrl.data.video import quantize
from mmrl.models.place import Device, Place
from mmrl.models.raft import ITERATIONS, raft
from mmrl.models.weights import RAFT
from mmrl.ops.video_scores import is_dynamic, top_flow
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("dynamic_degree")
class DynamicDegree(RewardConfig):
    """1 where enough pairs of frames move on by more than 6 px at 256 pixels, else 0 (VBench).

    Frames are taken at about 8 a second; of each pair the mean of the largest 5 % of flow counts,
    and round(n / 4) of n frames must pass. `scale: pixels` gives the mean of those flows at 256
    pixels of the shorter side instead, which is a reward with a slope. A video of one sampled
    frame scores NaN. Needs `mmrl data fetch vbench_motion`.
    """

    reads_prompt: ClassVar[bool] = False
    scale: Literal["vbench", "pixels"] = "vbench"
    max_side: int | None = Field(default=None, ge=64)
    """Frames are reduced to this longer side first; null for their own size, as VBench does."""
    max_frames: int | None = Field(default=None, ge=2)
    """At most so many sampled frames, from the start; null for all."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> float:
        frames = self._frames(sample)
        if len(frames) < 2:
            return torch.nan
        flow, short_side = raft(Place.of(self.device)), min(frames.shape[-2:])
        tops = [top_flow(flow(first, second)) for first, second in pairwise(frames)]
        if self.scale == "pixels":
            return sum(tops) / len(tops) * 256 / short_side
        return float(is_dynamic(tops, short_side=short_side, num_frames=len(frames))[0])

    def _frames(self, sample: VideoSample) -> Float[Tensor, "K 3 h w"]:
        stride = max(1, round(sample.fps / 8))
        frames = sample.video[::stride][: self.max_frames]
        longest = max(frames.shape[-2:])
        if self.max_side is not None and longest > self.max_side:
            scale = self.max_side / longest
            size = [max(8, round(side * scale)) for side in frames.shape[-2:]]
            frames = interpolate(frames, size, mode="bilinear", antialias=True)
        return quantize(frames).movedim(-1, 1).float() / 255

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {
            "model": f"RAFT (things), {ITERATIONS} iterations",
            **RAFT.origin(),
            "frames": "8 a second",
            "scale": "share of dynamic videos" if self.scale == "vbench" else "px at 256",
        }
