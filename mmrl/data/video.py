"""Videos in and out: decoded as RGB in [0, 1], written as mp4 or animated WebP."""

from __future__ import annotations

import io
import math
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageSequence
from torch import Tensor

from mmrl.data.images import as_rgb
from mmrl.data.prompts import DataError

ANIMATED = (".webp", ".gif", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""What Pillow reads: animations, and pictures as videos of one frame."""
FLOAT_BYTES = 4
MAX_BYTES = 4 * 2**30
"""Of the frames of one file that are decoded at once, as floats: 16 s of 720p at 24 a second."""
LOSSLESS_SIDE = 128
"""Pixels. Natural video at full size is megabytes without loss, and a page carries many."""


def uniform_indices(num_frames: int, count: int) -> list[int]:
    """Centres of `count` equal segments; a shorter video gives every frame once."""
    if num_frames < 1 or count < 1:
        raise ValueError(f"need at least one frame, got {num_frames} of which {count} are asked")
    if num_frames <= count:
        return list(range(num_frames))
    edges = [index * num_frames // count for index in range(count + 1)]
    return [(low + high - 1) // 2 for low, high in pairwise(edges)]


def to_uint8(video: Float[Tensor, "F 3 H W"]) -> UInt8[Tensor, "F 3 H W"]:
    """round(255 x) after clamping to [0, 1], half to even; ValueError for pixels not finite."""
    if not torch.isfinite(video).all():
        raise ValueError("pixels are not finite")
    return (video.clamp(0, 1) * 255).round().to(torch.uint8)


def quantize(video: Float[Tensor, "F 3 H W"]) -> UInt8[Tensor, "F H W 3"]:
    """As `to_uint8`, frames as pictures are stored."""
    return rearrange(to_uint8(video), "f c h w -> f h w c")


def read_video(path: Path, count: int | None = None) -> Float[Tensor, "F 3 H W"]:
    """All frames of a file, or `count` spread evenly; DataError names an unreadable file.

    Upright: both readers turn frames as the container's display matrix says. A matrix that mirrors
    as well is read by decord as its turn alone.
    """
    read = _read_animation if path.suffix.lower() in ANIMATED else _read_stream
    try:
        frames = read(path, count)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"video {path} cannot be read: {reason}") from error
    if len(frames) == 0:
        raise DataError(f"video {path} holds no frames")
    return rearrange(torch.from_numpy(frames), "f h w c -> f c h w").float().div_(255)


def video_fps(path: Path, default: float = 8.0) -> float:
    """Frames a second as the file tells, or `default` where it tells none, as a picture does."""
    if path.suffix.lower() not in ANIMATED:
        import decord

        told = decord.VideoReader(str(path), ctx=decord.cpu(0)).get_avg_fps()
        return told if math.isfinite(told) and told > 0 else default
    with Image.open(path) as image:
        image.load()
        milliseconds = image.info.get("duration", 0)
    return 1000 / milliseconds if milliseconds else default


def write_mp4(path: Path, video: Float[Tensor, "F 3 H W"], fps: float) -> None:
    """H.264 in the 4:2:0 layout every player reads, which needs even sides: else ValueError."""
    import imageio_ffmpeg

    _, _, height, width = video.shape
    if height % 2 or width % 2:
        raise ValueError(f"sides must be even for H.264 4:2:0, got {height}x{width}")
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,  # pyright: ignore[reportArgumentType]
        codec="libx264",
        quality=9,
        macro_block_size=2,
    )
    writer.send(None)
    for frame in quantize(video).numpy():
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def encode_webp(
    video: Float[Tensor, "F 3 H W"], *, fps: float, scale: int = 1, max_side: int = 320
) -> bytes:
    """A looping WebP, pixels repeated `scale` times; lossless for small videos.

    Where that would pass `max_side`, frames keep or shrink to that side: a page stays light.
    """
    frames = [Image.fromarray(frame) for frame in quantize(video).numpy()]
    size, longest = frames[0].size, max(frames[0].size)
    if longest * scale <= max_side:
        size = (frames[0].width * scale, frames[0].height * scale)
        frames = [frame.resize(size, Image.Resampling.NEAREST) for frame in frames]
    elif longest > max_side:
        shrink = max_side / longest
        size = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
        frames = [frame.resize(size, Image.Resampling.BOX) for frame in frames]
    sink = io.BytesIO()
    frames[0].save(
        sink,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / fps),
        loop=0,
        lossless=longest <= LOSSLESS_SIDE,
        quality=80,
    )
    return sink.getvalue()


def _pick(num_frames: int, count: int | None, size: tuple[int, int]) -> list[int]:
    """Frames to decode; ValueError where they are too large to hold as floats."""
    picked = list(range(num_frames)) if count is None else uniform_indices(num_frames, count)
    needed = len(picked) * size[0] * size[1] * 3 * FLOAT_BYTES
    if needed > MAX_BYTES:
        raise ValueError(
            f"{len(picked)} frames of {size[0]}x{size[1]} take {needed / 2**30:.1f} GiB as floats, "
            f"more than {MAX_BYTES / 2**30:g}: cut or shrink it, or read fewer frames"
        )
    return picked


def _read_animation(path: Path, count: int | None) -> np.ndarray:
    with Image.open(path) as image:
        picked = _pick(getattr(image, "n_frames", 1), count, image.size)
        frames = ImageSequence.Iterator(image)
        wanted = set(picked)
        return np.stack([np.asarray(as_rgb(f)) for i, f in enumerate(frames) if i in wanted])


def _read_stream(path: Path, count: int | None) -> np.ndarray:
    import decord

    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0))
        height, width, _ = reader[0].shape
        return reader.get_batch(_pick(len(reader), count, (width, height))).asnumpy()
    except decord.DECORDError as error:
        if "size must exactly match" not in str(error):
            raise
    frames = _read_narrow(path)
    _, height, width, _ = frames.shape
    return frames[_pick(len(frames), count, (width, height))]


def _read_narrow(path: Path) -> np.ndarray:
    """decord cannot copy frames narrower than its rows are aligned; ffmpeg itself can.

    A PPM frame is a header with its size, then its bytes; all headers of a video are alike.
    """
    import imageio_ffmpeg

    pipe = ["-v", "error", "-f", "image2pipe", "-c:v", "ppm", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), *pipe]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    header = re.match(rb"P6\n(\d+) (\d+)\n255\n", content)
    assert header is not None, "ffmpeg writes binary PPM"
    width, height = int(header[1]), int(header[2])
    frames = np.frombuffer(content, np.uint8).reshape(-1, header.end() + 3 * width * height)
    return frames[:, header.end() :].reshape(-1, height, width, 3)
