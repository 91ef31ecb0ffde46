"""A penalty for nudity in any frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.video import to_uint8, uniform_indices
from mmrl.models.nudity import nudity_detector
from mmrl.models.place import Device
from mmrl.models.weights import NUDENET
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("nsfw_penalty")
class NsfwPenalty(RewardConfig):
    """-p, p the largest probability of an exposed body part in the frames; 0 below `floor`.

    In [-1, 0]. A detector that finds nothing is no proof that a video is harmless. Needs
    `mmrl data fetch nudenet` and `pip install 'mmrl[real]'`.
    """

    reads_prompt: ClassVar[bool] = False
    reads_spread_frames: ClassVar[bool] = True
    num_frames: int = Field(default=4, ge=1)
    floor: float = Field(default=0.2, ge=0, le=1)
    """Probabilities below it are noise; NudeNet's own limit."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.stack([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> Float[Tensor, ""]:
        frames = sample.video[uniform_indices(len(sample.video), self.num_frames)]
        found = nudity_detector(self.device)(to_uint8(frames)).max()
        return torch.where(found >= self.floor, -found, 0.0)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {
            "model": "NudeNet 3.4 320n, five exposed classes",
            **NUDENET.origin(),
            "frames": f"uniform:{self.num_frames}, the largest",
            "scale": "-probability",
        }
