"""The pictures of a sample, as a judge is shown them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mmrl.data.video import quantize, uniform_indices
from mmrl.types import Sample, TextSample


def pictures_of(
    sample: Sample, *, num_frames: int, side: int | None = None
) -> tuple[Path | Image.Image, ...]:
    """An answer's prompt pictures, or a video's frames at the centres of equal segments.

    `side` resizes frames to a square of so many pixels, whatever their shape.
    """
    if isinstance(sample, TextSample):
        return sample.prompt.images
    picked = sample.video[uniform_indices(len(sample.video), num_frames)]
    frames = [Image.fromarray(frame.numpy()) for frame in quantize(picked.cpu())]
    if side is None:
        return tuple(frames)
    return tuple(frame.resize((side, side), Image.Resampling.BICUBIC) for frame in frames)
