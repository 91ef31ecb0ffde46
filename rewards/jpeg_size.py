"""Size of a picture as a JPEG file: the reward that needs no model (DDPO)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmrl.data.video import quantize
from mmrl.reward import RewardConfig, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import VideoSample

QUALITY = 95
COMPRESSIBLE = 500.0


@rewards.register("jpeg_size")
class JpegSize(RewardConfig):
    """Mean kB (1000 bytes) of the frames as JPEG of quality 95, or -kB / 500 (arXiv:2305.13301).

    `incompressible` wants detail, `compressible` plainness. Bytes depend on the JPEG library, so
    compare numbers of one machine only. Pixels that are not finite score NaN.
    """

    reads_prompt: ClassVar[bool] = False
    want: Literal["incompressible", "compressible"] = "incompressible"

    @judges_videos
    def __call__(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        return wanted(torch.tensor([kilobytes(sample.video) for sample in samples]), self.want)


def wanted(
    sizes: Float[Tensor, " B"], want: Literal["incompressible", "compressible"]
) -> Float[Tensor, " B"]:
    """kB as they are, or -kB / 500."""
    return sizes if want == "incompressible" else -sizes / COMPRESSIBLE


def kilobytes(video: Float[Tensor, "F 3 H W"]) -> float:
    """Mean over frames of bytes / 1000."""
    total = 0
    for frame in video:
        sink = io.BytesIO()
        Image.fromarray(quantize(frame[None])[0].numpy()).save(sink, "JPEG", quality=QUALITY)
        total += sink.tell()
    return total / len(video) / 1000
