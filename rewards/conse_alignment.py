"""Does a video show the things its prompt names? An object classifier read through sentences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.models.mobilenet import class_names, mobilenet_v2
from mmrl.models.place import Device, Place
from mmrl.models.sentences import embed_texts
from mmrl.models.weights import MINILM, MOBILENET_V2
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample


@rewards.register("conse_alignment")
class ConseAlignment(RewardConfig):
    """cos(sum of p_c e(class c) over the `top` classes, e(prompt)), in [-1, 1] (ConSE, 1312.5650).

    p are MobileNetV2's class probabilities, mean over frames; e is MiniLM, a class read as
    "a photo of a NAME". Nothing is fitted. Good on objects, blind to style and relations. Needs
    `mmrl data fetch mobilenet_v2` and `minilm`.
    """

    reads_spread_frames: ClassVar[bool] = True
    num_frames: int = Field(default=4, ge=1)
    top: int = Field(default=10, ge=1, le=1000)
    cache: Literal["memory", "disk"] = "memory"
    """Where class probabilities of frames are kept; on disk they outlive the process."""
    device: Device = None

    @cached_property
    def classes(self) -> Float[Tensor, "classes D"]:
        names = [f"a photo of a {name}" for name in class_names()]
        return embed_texts(names, Place.of(self.device))

    @judges_videos_and_prompts
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        pictures = self.pictures([sample.video for sample in samples])
        return (self.texts([sample.prompt.text for sample in samples]) * pictures).sum(-1)

    def pictures(self, videos: Sequence[Float[Tensor, "_ 3 _ _"]]) -> Float[Tensor, "N D"]:
        """Videos as unit sentence embeddings: the top classes, each by its probability."""
        classify = mobilenet_v2(self.cache, Place.of(self.device))
        shown = torch.stack([classify.video(video, self.num_frames).mean(0) for video in videos])
        values, places = shown.topk(self.top, dim=-1)
        return normalize((values[..., None] * self.classes[places]).sum(1), dim=-1)

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Prompts as unit sentence embeddings."""
        return embed_texts(prompts, Place.of(self.device))

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {
            "model": "torchvision MobileNetV2 (ImageNet-1k) + all-MiniLM-L6-v2",
            **MOBILENET_V2.origin(),
            "text_weights_sha256": MINILM.sha256,
            "frames": f"uniform:{self.num_frames}, mean of probabilities",
            "scale": "cosine of sentence embeddings",
        }
