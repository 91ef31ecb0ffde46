"""How well a video fits its prompt, by real CLIP picture features and a fitted map of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.models.clip_b16 import clip_b16_image
from mmrl.models.place import Device, Place
from mmrl.models.sentences import embed_texts
from mmrl.models.text_adapter import TextAdapter, load_adapter
from mmrl.models.weights import CLIP_B16_IMAGE, MINILM
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample

SHIPPED = Path(__file__).parent.parent / "assets" / "heads" / "clip_b16_adapter.safetensors"


@rewards.register("clip_adapter")
class ClipAdapter(RewardConfig):
    """cos((t - mean_t) W, v - mean_v), in [-1, 1]; not CLIPScore.

    v is the unit mean of CLIP ViT-B/16 embeddings of the frames, t the MiniLM embedding of the
    prompt, W a ridge map fitted on generated media with their prompts. Needs
    `mmrl data fetch clip_b16_image` and `minilm`.
    """

    reads_spread_frames: ClassVar[bool] = True
    adapter: Path | None = None
    """A file that pipelines/tiny/clip_adapter.py writes; null for the one in assets/heads."""
    num_frames: int = Field(default=4, ge=1)
    cache: Literal["memory", "disk"] = "memory"
    """Where embeddings of frames are kept; on disk they outlive the process."""
    device: Device = None

    @cached_property
    def loaded(self) -> tuple[TextAdapter, dict[str, str]]:
        return load_adapter(self.adapter or SHIPPED)

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        pictures = self.pictures([sample.video for sample in samples])
        return (self.texts([sample.prompt.text for sample in samples]) * pictures).sum(-1)

    def pictures(self, videos: Sequence[Float[Tensor, "_ 3 _ _"]]) -> Float[Tensor, "N D"]:
        """Videos as unit directions from the mean picture."""
        embed = clip_b16_image(self.cache, Place.of(self.device))
        frames = [embed.video(video, self.num_frames).mean(0) for video in videos]
        return self.loaded[0].map_images(normalize(torch.stack(frames), dim=-1))

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Prompts as unit directions in the same space."""
        return self.loaded[0].map_texts(embed_texts(prompts, Place.of(self.device)))

    def origin(self) -> dict[str, str | int]:
        """What a report says of this score."""
        file = self.adapter or SHIPPED
        return {
            "model": "CLIP ViT-B/16 image tower (int8-rounded) + all-MiniLM-L6-v2 + ridge adapter",
            **CLIP_B16_IMAGE.origin(),
            "text_weights_sha256": MINILM.sha256,
            "adapter_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "adapter_fitted_on": self.loaded[1].get("fitted_on", "not told"),
            "frames": f"uniform:{self.num_frames}, mean of unit embeddings",
            "scale": "cosine of centered embeddings",
        }
