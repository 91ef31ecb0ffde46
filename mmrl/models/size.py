"""Sizes that a model can make: whole latents, and whole patches of them."""

from __future__ import annotations

from collections.abc import Mapping

from mmrl.config import ConfigError
from mmrl.policies.video_model import VideoSize


def patch_of(config: Mapping) -> tuple[int, int, int]:
    """Frames, rows and columns of latents in one token, from a denoiser's config."""
    space = config.get("patch_size") or 1
    if isinstance(space, list | tuple):
        time, height, width = space
        return time, height, width
    return config.get("patch_size_t") or 1, space, space


def check_video_size(size: VideoSize, config: Mapping, *, time: int, space: int) -> None:
    """ConfigError unless a VAE of these factors makes such videos, and `config`'s patches fit.

    A first frame is one latent frame, every other latent frame makes `time` frames; a side is cut
    into patches of `space` pixels a latent. Other sizes would be rounded down without a word.
    """
    if (size.num_frames - 1) % time:
        nearest = max(0, round((size.num_frames - 1) / time)) * time + 1
        raise ConfigError(
            f"this model makes 1 frame and {time} at a time after it, got {size.num_frames}; "
            f"try {nearest}",
            key="video.num_frames",
        )
    _, height, width = patch_of(config)
    check_side("height", size.height, space * height)
    check_side("width", size.width, space * width)


def check_side(name: str, pixels: int, multiple: int) -> None:
    """ConfigError unless a side is a multiple of `multiple` pixels."""
    if pixels % multiple:
        raise ConfigError(
            f"{pixels} is no multiple of this model's {multiple} pixels; "
            f"try {max(1, round(pixels / multiple)) * multiple}",
            key=f"video.{name}",
        )
