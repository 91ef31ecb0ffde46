"""Points and boxes on a picture, in every space a model or a data set writes them in.

Inside mmrl a point is in [0, 1] x [0, 1], from the upper left corner; nothing else converts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from mmrl.config import Config, ConfigError

Point = tuple[float, float]
Space = Literal["unit", "thousand", "pixel", "resized"]
Border = Literal["half_open", "strict", "inclusive"]
LARGEST_RATIO = 200
"""Sides of a picture that the Qwen-VL processors still take."""


@dataclass(frozen=True)
class ImageSize:
    """Width and height in pixels; ValueError unless both are above 0."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size must be > 0, got {self.width} x {self.height}")


@dataclass(frozen=True)
class Box:
    """Upper left and lower right corner in [0, 1]; ValueError for another order or range."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        sides = (self.x1, self.y1, self.x2, self.y2)
        if not all(math.isfinite(side) and 0 <= side <= 1 for side in sides):
            raise ValueError(f"a box must lie inside its picture, in [0, 1] it is {sides}")
        if self.x1 > self.x2 or self.y1 > self.y2:
            raise ValueError(f"a box needs x1 <= x2 and y1 <= y2, in [0, 1] it is {sides}")

    @property
    def center(self) -> Point:
        """The middle of both sides."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height."""
        return self.x2 - self.x1, self.y2 - self.y1

    def holds(self, point: Point, border: Border) -> bool:
        """Whether the point is inside; `half_open` counts the upper and left side as inside."""
        x, y = point
        if border == "strict":
            return self.x1 < x < self.x2 and self.y1 < y < self.y2
        if border == "inclusive":
            return self.x1 <= x <= self.x2 and self.y1 <= y <= self.y2
        return self.x1 <= x < self.x2 and self.y1 <= y < self.y2


def in_picture(point: Point) -> bool:
    """Whether a point of [0, 1] x [0, 1] lies in its picture, borders included."""
    return all(0 <= side <= 1 for side in point)


class Coordinates(Config):
    """What a pair of numbers means: `frame` is what the lower right corner is called.

    `unit`: 1, 1. `thousand`: 1000, 1000 (Qwen3-VL). `pixel`: the picture's own width and height.
    `resized`: those of the picture as the processor resizes it (Qwen2.5-VL), whose `factor` is 28
    for Qwen2-VL and Qwen2.5-VL and 32 for Qwen3-VL; both bounds are the processor's.
    """

    space: Space = "resized"
    factor: Literal[28, 32] = 28
    min_pixels: int = Field(default=56 * 56, ge=1)
    max_pixels: int = Field(default=28 * 28 * 1280, ge=1)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Coordinates:
        if self.min_pixels > self.max_pixels:
            raise ConfigError(
                f"{self.min_pixels} is above max_pixels {self.max_pixels}", key="min_pixels"
            )
        return self

    def frame(
        self, size: ImageSize | None = None, resized: ImageSize | None = None
    ) -> tuple[float, float]:
        """Both numbers of the lower right corner; a known `resized` size wins over a computed one.

        ValueError where the space needs a size and there is none.
        """
        if self.space == "unit":
            return 1.0, 1.0
        if self.space == "thousand":
            return 1000.0, 1000.0
        if self.space == "resized" and resized is not None:
            return float(resized.width), float(resized.height)
        if size is None:
            raise ValueError(
                f"coordinates in {self.space} space need the image size; none is given"
            )
        if self.space == "resized":
            size = smart_resize(
                size, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
            )
        return float(size.width), float(size.height)

    def to_unit(
        self, point: Point, size: ImageSize | None = None, resized: ImageSize | None = None
    ) -> Point:
        """The point in [0, 1]; one outside the picture stays outside."""
        width, height = self.frame(size, resized)
        return point[0] / width, point[1] / height

    def from_unit(
        self, point: Point, size: ImageSize | None = None, resized: ImageSize | None = None
    ) -> Point:
        """The point as this space calls it, not rounded."""
        width, height = self.frame(size, resized)
        return point[0] * width, point[1] * height

    def box(self, sides: tuple[float, float, float, float], size: ImageSize | None = None) -> Box:
        """A box in [0, 1]; ValueError where it leaves the picture or its corners are swapped."""
        return Box(*self.to_unit(sides[:2], size), *self.to_unit(sides[2:], size))


def smart_resize(size: ImageSize, *, factor: int, min_pixels: int, max_pixels: int) -> ImageSize:
    """The size to which the processors of Qwen2-VL, Qwen2.5-VL and Qwen3-VL bring a picture.

    Sides are rounded to multiples of `factor`; where that leaves the bounds on the area, the
    picture is first scaled to the bound, then floored (too large) or ceiled (too small).
    ValueError for a ratio of sides above 200, as the processors raise it.
    """
    long, short = max(size.width, size.height), min(size.width, size.height)
    if long / short > LARGEST_RATIO:
        raise ValueError(
            f"a picture of {size.width} x {size.height} is too narrow: the ratio of its sides "
            f"may be {LARGEST_RATIO} at most"
        )
    width, height = (round(side / factor) * factor for side in (size.width, size.height))
    area = size.width * size.height
    if width * height > max_pixels:
        shrink = math.sqrt(area / max_pixels)
        width, height = (
            max(factor, math.floor(side / shrink / factor) * factor)
            for side in (size.width, size.height)
        )
    elif width * height < min_pixels:
        grow = math.sqrt(min_pixels / area)
        width, height = (
            math.ceil(side * grow / factor) * factor for side in (size.width, size.height)
        )
    return ImageSize(width, height)
