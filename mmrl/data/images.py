"""Pictures from files: always RGB, always upright, never a guess about their range."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from mmrl.data.files import DataError


class DeepImageError(ValueError):
    """More than 8 bits a channel."""


@lru_cache(maxsize=256)
def load_image(path: Path) -> Image.Image:
    """As `read_image`; the last ones stay in memory, as the rollouts of a prompt share theirs."""
    return read_image(path)


def read_image(path: Path) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF tag says, transparency put on white.

    DataError for a file that is no picture, and for more than 8 bits a channel: how such values
    map to 8 bits is a medical decision, not ours.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return as_rgb(image)
    except DeepImageError as error:
        raise DataError(f"image {path} has {error}") from error
    except Exception as error:
        raise DataError(f"image {path} cannot be read: {error}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any picture, or a frame of one, by the rules of `read_image`; DeepImageError past 8 bits."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        raise DeepImageError(f"mode {upright.mode} (more than 8 bits): window it to 8 bits first")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")
