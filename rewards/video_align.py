"""VideoAlign: a vision-language model that grades picture, motion and fit to the prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from mmrl.models.folder import check_model_folder
from mmrl.models.place import Device, Place, Precision
from mmrl.models.reward_checkpoint import Checkpoint, newest_step, read_json
from mmrl.models.reward_tokens import (
    RewardTokenModel,
    check_question,
    frame_indices,
    harmless,
    load_reward_tokens,
    resized,
)
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample

TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
DIMENSIONS: tuple[str, ...] = ("VQ", "MQ", "TA")
PUBLISHED = {"VQ": (3.6757, 2.2476), "MQ": (1.1646, 1.3811), "TA": (2.8105, 2.5121)}
"""Mean and std of raw scores that the released checkpoint is normalized with."""
MIN_PIXELS, MAX_PIXELS = 128 * 28 * 28, 448 * 448


@rewards.register("video_align")
class VideoAlign(RewardConfig):
    """Visual quality, motion quality, text alignment, or their sum (arXiv:2501.13918).

    Each is (raw - mean) / std with the statistics of the checkpoint; `overall` is the sum of the
    three. Frames: two a second, an even number from 4 on; a video of one frame scores NaN.
    `question` is the text file of the checkpoint's own prompt, with {caption} where the video's
    prompt goes and the three reward tokens in it: other words give other scores.
    """

    model: str
    """Qwen2-VL-2B-Instruct, the base: a folder or a hub id."""
    checkpoint: Path
    """The released folder: model_config.json and checkpoint-<step>/."""
    question: Path
    step: int = -1
    """Which checkpoint; -1: the newest."""
    dimension: Literal["overall", "VQ", "MQ", "TA"] = "overall"
    normalize: bool = True
    sample_fps: float = Field(default=2.0, gt=0)
    max_pixels: int = Field(default=MAX_PIXELS, ge=MIN_PIXELS)
    device: Device = None
    precision: Precision = "bfloat16"

    @field_validator("question")
    @classmethod
    def _has_its_places(cls, path: Path) -> Path:
        return check_question(path, TOKENS)

    def check(self) -> None:
        """Whether the base can be one, and the checkpoint has a config and the step."""
        check_model_folder(self.model, "config.json")
        read_json(self.checkpoint / "model_config.json")
        newest_step(self.checkpoint, self.step)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's model_config.json."""
        return read_json(self.checkpoint / "model_config.json")

    @cached_property
    def scorer(self) -> RewardTokenModel:
        """The model, loaded on first use."""
        lora = self.config.get("peft_lora_config") or {}
        scale = lora["lora_alpha"] / lora["lora_r"] if "lora_r" in lora else None
        weights = Checkpoint.read(newest_step(self.checkpoint, self.step), scale)
        place = Place.of(self.device, self.precision)
        return load_reward_tokens(self.model, weights, TOKENS, place=place)

    @cached_property
    def statistics(self) -> dict[str, tuple[float, float]]:
        """Mean and std by dimension: the checkpoint's, or the published ones."""
        told = self.config.get("inference_config") or {}
        return {
            name: (told.get(f"{name}_mean", mean), told.get(f"{name}_std", std))
            for name, (mean, std) in PUBLISHED.items()
        }

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: VideoSample) -> float:
        video, asked = sample.video, sample.prompt.text.strip()
        if len(video) < 2 or not (asked or self.dimension in ("VQ", "MQ")):
            return math.nan
        picked = video[frame_indices(len(video), sample.fps, sample_fps=self.sample_fps)]
        frames = resized(picked, min_pixels=MIN_PIXELS, max_pixels=self.max_pixels)
        text = self.question.read_text("utf-8").replace("{caption}", harmless(sample.prompt.text))
        raw = dict(
            zip(DIMENSIONS, self.scorer.score(frames, text, video=True).tolist(), strict=True)
        )
        scores = normalized(raw, self.statistics) if self.normalize else raw
        return sum(scores.values()) if self.dimension == "overall" else scores[self.dimension]

    def origin(self) -> dict[str, str]:
        """What a result says about this number."""
        found = newest_step(self.checkpoint, self.step)
        return {"weights": found.name, "frames": f"fps:{self.sample_fps:g}", "scale": "normalized"}


def normalized(
    raw: Mapping[str, float], statistics: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """(raw - mean) / std by dimension."""
    return {name: (raw[name] - mean) / std for name, (mean, std) in statistics.items()}
