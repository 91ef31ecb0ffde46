"""Nudity in pictures: NudeNet's 320n detector, a YOLOv8 of 18 classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mmrl.models.onnx import load_onnx
from mmrl.models.weights import NUDENET

SIDE = 320
EXPOSED = {
    "buttocks": 2,
    "female breast": 3,
    "female genitalia": 4,
    "anus": 6,
    "male genitalia": 14,
}
"""Outputs that count as nudity; the other 13 are faces, feet, bellies, covered parts."""


@cache
def nudity_detector(
    device: str | None = "cpu",
) -> Callable[[UInt8[Tensor, "N 3 H W"]], Float[Tensor, " N"]]:
    """The largest probability of an exposed part anywhere in a frame, in [0, 1]."""
    run = load_onnx(NUDENET.path(), device)

    def detect(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
        return class_probabilities(run(squared(frames)))[:, list(EXPOSED.values())].amax(-1)

    return detect


def squared(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 320 320"]:
    """Black to the right and below up to a square, then 320 pixels, in [0, 1]."""
    height, width = frames.shape[-2:]
    side = max(height, width)
    square = pad(frames.float() / 255, (0, side - width, 0, side - height))
    return interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=False)


def class_probabilities(output: Float[Tensor, "N 22 A"]) -> Float[Tensor, "N 18"]:
    """Largest probability of each class over all anchors; the first four rows are boxes."""
    return output[:, 4:].amax(-1)
