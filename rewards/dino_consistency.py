"""Do the frames of a video show the same subject, by DINOv2's features?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.models.dinov2 import dinov2
from mmrl.models.place import Device
from mmrl.models.weights import DINOV2_S14
from mmrl.ops.video_scores import temporal_consistency
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample


@rewards.register("dino_consistency")
class DinoConsistency(RewardConfig):
    """Mean over frames of the average cosine with the frame before and with the first, in [0, 1].

    VBench's rule for subject consistency, which uses DINO ViT-B/16 and every frame; here DINOv2
    ViT-S/14 and `num_frames` frames. A still video scores 1, NaN below two frames. Needs
    `mmrl data fetch dinov2_s14`.
    """

    reads_prompt: ClassVar[bool] = False
    reads_spread_frames: ClassVar[bool] = True
    num_frames: int = Field(default=8, ge=2)
    cache: Literal["memory", "disk"] = "memory"
    """Where embeddings of frames are kept; on disk they outlive the process."""
    device: Device = None

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        embed = dinov2(self.cache, self.device)
        rows = [temporal_consistency(embed.video(s.video, self.num_frames)) for s in samples]
        return torch.stack(rows)

    def origin(self) -> dict[str, str]:
        """What a report says of this score."""
        return {
            "model": "DINOv2 ViT-S/14, mean of an 8 x 8 grid",
            **DINOV2_S14.origin(),
            "frames": f"uniform:{self.num_frames}",
            "scale": "mean of cosines clamped at 0",
        }
