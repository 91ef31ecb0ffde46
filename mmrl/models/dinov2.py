"""DINOv2 ViT-S/14 (arXiv:2304.07193) as frame embeddings, from an ONNX file."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from mmrl.models.frame_cache import FrameCache
from mmrl.models.onnx import load_onnx
from mmrl.models.weights import DINOV2_S14

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def dinov2(keep: Literal["memory", "disk"] = "memory", device: str | None = "cpu") -> FrameCache:
    """Unit embeddings of frames, (N, 384): the mean over the file's 8 x 8 grid of patches."""
    run = load_onnx(DINOV2_S14.path(), device)

    def embed(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        return normalize(run(prepared(frames)).flatten(1, 2).mean(1), dim=-1)

    return FrameCache(embed, DINOV2_S14.sha256, rows=8, disk=keep == "disk")


def prepared(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 224 224"]:
    """Shorter side 224 (bicubic, antialiased), center crop, ImageNet's mean and std."""
    height, width = frames.shape[-2:]
    scale = SIDE / min(height, width)
    size = (max(SIDE, round(height * scale)), max(SIDE, round(width * scale)))
    pixels = interpolate(frames.float() / 255, size, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    pixels = pixels[..., top : top + SIDE, left : left + SIDE]
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
