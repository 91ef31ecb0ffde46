"""What a frame shows among the 1000 classes of ImageNet: torchvision's MobileNetV2."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

import mmrl.torchvision_fix  # noqa: F401
from mmrl.models.frame_cache import FrameCache
from mmrl.models.place import CPU, Place, to_host
from mmrl.models.weights import MOBILENET_V2

ROWS = 32
"""Frames of one forward pass."""


@cache
def mobilenet_v2(keep: Literal["memory", "disk"] = "memory", place: Place = CPU) -> FrameCache:
    """Class probabilities of frames, (N, 1000); preprocessing as torchvision's V1 weights have it:
    shorter side 256, center crop 224."""
    from PIL import Image
    from torchvision.models import MobileNet_V2_Weights
    from torchvision.models import mobilenet_v2 as build

    model = build(weights=None)
    model.load_state_dict(
        torch.load(MOBILENET_V2.path(), map_location="cpu", weights_only=True), strict=True
    )
    model = place.holds(model)
    prepare = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()

    @torch.no_grad()
    def embed(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        arrays = rearrange(frames, "n c h w -> n h w c").numpy()
        pixels = torch.stack([prepare(Image.fromarray(array)) for array in arrays])
        return to_host(model(place.floats(pixels)).softmax(-1))

    return FrameCache(embed, MOBILENET_V2.sha256, rows=ROWS, disk=keep == "disk")


def class_names() -> list[str]:
    """Names of the 1000 classes, in the order of the outputs."""
    from torchvision.models import MobileNet_V2_Weights

    return list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
