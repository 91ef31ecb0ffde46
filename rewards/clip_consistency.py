"""Do the frames of a video show the same thing, by CLIP's picture features?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.models.clip_b16 import clip_frames
from mmrl.models.place import Device, Place
from mmrl.models.weights import CLIP_B16_IMAGE
from mmrl.ops.video_scores import temporal_consistency
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("clip_consistency")
class ClipConsistency(RewardConfig):
    """Mean over frames of the average cosine with the frame before and with the first, in [0, 1].

    VBench's rule for background consistency, which uses ViT-B/32 and every frame; here ViT-B/16
    and `num_frames` frames by default. A still video scores 1. NaN below two frames.
    """

    reads_prompt: ClassVar[bool] = False
    reads_spread_frames: ClassVar[bool] = True
    model: str | None = None
    """A folder of a CLIP; null for the packaged ViT-B/16 (`mmrl data fetch clip_b16_image`)."""
    num_frames: int = Field(default=4, ge=2)
    cache: Literal["memory", "disk"] = "memory"
    """Where embeddings of the packaged tower are kept; on disk they outlive the process."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        embed = clip_frames(self.model, self.cache, Place.of(self.device))
        rows = [temporal_consistency(embed.video(s.video, self.num_frames)) for s in samples]
        return torch.stack(rows)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        packaged = {
            "model": "CLIP ViT-B/16 image tower (int8-rounded)",
            **CLIP_B16_IMAGE.origin(),
        }
        return {
            **(packaged if self.model is None else {}),
            "frames": f"uniform:{self.num_frames}",
            "scale": "mean of cosines clamped at 0",
        }
