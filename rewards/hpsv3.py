"""HPSv3: human preference for a picture, from a vision-language model (arXiv:2508.03789)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.data.video import uniform_indices
from mmrl.models.folder import check_file, check_model_folder
from mmrl.models.place import Device, Place, Precision
from mmrl.models.reward_checkpoint import Checkpoint, modern, read_weights
from mmrl.models.reward_tokens import (
    RewardTokenModel,
    check_question,
    harmless,
    load_reward_tokens,
    resized,
)
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample

TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28


@rewards.register("hpsv3")
class HpsV3(RewardConfig):
    """Mean over frames of mu, the first of the head's two outputs (mu, sigma), without a scale.

    Pictures are brought to 200,704 pixels; the head runs in float32. `question` is the text file of
    the released prompt, with {caption} and the reward token in it: other words, other scores.
    """

    reads_spread_frames: ClassVar[bool] = True
    model: str
    """Qwen2-VL-7B-Instruct, the base: a folder or a hub id."""
    checkpoint: Path
    """`HPSv3.safetensors`."""
    question: Path
    num_frames: int = Field(default=1, ge=1)
    device: Device = None
    precision: Precision = "bfloat16"

    @field_validator("question")
    @classmethod
    def _has_its_places(cls, path: Path) -> Path:
        return check_question(path, [TOKEN])

    def check(self) -> None:
        """Whether the base can be one, and the checkpoint is there."""
        check_model_folder(self.model, "config.json")
        check_file(self.checkpoint, "checkpoint")

    @cached_property
    def scorer(self) -> RewardTokenModel:
        """The model, loaded on first use."""
        if not self.checkpoint.is_file():
            raise ConfigError(f"{self.checkpoint}: no such file", key="checkpoint")
        weights = {modern(name): value for name, value in read_weights(self.checkpoint).items()}
        place = Place.of(self.device, self.precision)
        return load_reward_tokens(self.model, Checkpoint(weights), [TOKEN], place=place)

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: VideoSample) -> float:
        picked = sample.video[uniform_indices(len(sample.video), self.num_frames)]
        frames = resized(picked, min_pixels=PIXELS, max_pixels=PIXELS)
        text = self.question.read_text("utf-8").replace("{caption}", harmless(sample.prompt.text))
        found = [self.scorer.outputs(frame[None], text, video=False)[0, 0] for frame in frames]
        return torch.stack(found).mean().item()
