"""ImageReward: a BLIP model trained on human rankings of pictures (arXiv:2304.05977)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.video import to_uint8, uniform_indices
from mmrl.models.blip_reward import BlipReward, load_blip_reward
from mmrl.models.folder import check_file, check_model_folder
from mmrl.models.place import Device, Place, Precision
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample

MEAN, STD = 0.16717362830052426, 1.0333394966054072


@rewards.register("image_reward")
class ImageReward(RewardConfig):
    """Mean over frames of (raw - 0.1672) / 1.0333, the released normalization.

    Prompts are cut to 35 tokens. Pixels that are not finite score NaN.
    """

    reads_spread_frames: ClassVar[bool] = True
    model: str
    """A BLIP-large folder for its config and tokenizer (Salesforce/blip-itm-large-coco)."""
    checkpoint: Path
    """`ImageReward.pt`."""
    num_frames: int = Field(default=8, ge=1)
    device: Device = None
    precision: Precision = "float32"

    def check(self) -> None:
        """Whether the base can be one, and the checkpoint is there."""
        check_model_folder(self.model, "config.json")
        check_file(self.checkpoint, "checkpoint")

    @cached_property
    def scorer(self) -> BlipReward:
        """The model, loaded on first use."""
        place = Place.of(self.device, self.precision)
        return load_blip_reward(self.model, self.checkpoint, place)

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.stack([self._score(sample) for sample in samples])

    def _score(self, sample: VideoSample) -> Float[Tensor, ""]:
        frames = to_uint8(sample.video[uniform_indices(len(sample.video), self.num_frames)])
        raw = self.scorer.score(frames, [sample.prompt.text] * len(frames))
        return normalized(raw).mean()

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        return {"weights": self.checkpoint.name, "frames": f"uniform:{self.num_frames}"}


def normalized(raw: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Mean 0 and std 1 over the pictures it was trained on."""
    return (raw - MEAN) / STD
