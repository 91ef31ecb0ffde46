"""A small world of videos: handwritten digits in four colours that move in four directions.

The pictures are scikit-learn's bundled digits (UCI optical recognition of handwritten digits), so
the videos hold real handwriting. A fifth of the pictures and of the combinations is held out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.15, 1.0, 0.2),
    "blue": (0.25, 0.35, 1.0),
    "yellow": (1.0, 0.95, 0.1),
}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Unit steps (rows, columns); rows grow downward."""
NUM_FRAMES, SIDE, GLYPH = 9, 32, 18
LOW, HIGH = 0.1, 0.9
"""Range of pixels: a video VAE that clamps to [-1, 1] has no gradient at the ends of its range."""
TRAVEL = (10.0, 14.0)
"""Pixels from the first to the last frame."""


@dataclass(frozen=True)
class Combination:
    """One of the 160 things a video can show."""

    digit: int
    colour: str
    direction: str

    @property
    def caption(self) -> str:
        """Such as "a red three moving left"."""
        return f"a {self.colour} {DIGITS[self.digit]} moving {self.direction}"

    @property
    def held_out(self) -> bool:
        """One combination in five; every digit, colour and direction is on both sides."""
        colour, direction = list(COLOURS).index(self.colour), list(DIRECTIONS).index(self.direction)
        return (self.digit + 2 * colour + 3 * direction) % 5 == 0


def combinations(*, held_out: bool | None = None) -> list[Combination]:
    """All combinations, or those of one side of the split."""
    every = [Combination(d, c, w) for d in range(10) for c in COLOURS for w in DIRECTIONS]
    return [one for one in every if held_out is None or one.held_out == held_out]


@lru_cache(maxsize=2)
def pictures(*, held_out: bool) -> tuple[Float[Tensor, "N 8 8"], Int[Tensor, " N"]]:
    """The 8x8 pictures in [0, 1] of one side of the split, and their digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    part = (torch.arange(len(labels)) % 5 == 0) == held_out
    return images[part], labels[part]


def render(
    picture: Float[Tensor, "8 8"], combination: Combination, generator: torch.Generator
) -> Float[Tensor, "F 3 H W"]:
    """One video: the picture at 18x18, from a random place, 10 to 14 pixels along its way."""
    glyph = interpolate(picture[None, None], size=GLYPH, mode="bicubic")[0, 0].clamp(0, 1)
    room = SIDE - GLYPH
    low, high = TRAVEL
    travel = low + (high - low) * _uniform(generator)
    time = torch.linspace(0, 1, NUM_FRAMES)
    paths = []
    for step in DIRECTIONS[combination.direction]:
        free = room if step == 0 else max(room - travel, 0.0)
        offset = free * _uniform(generator)
        paths.append((room - offset if step < 0 else offset) + step * min(travel, room) * time)
    alpha = torch.stack([_place(glyph, row, column) for row, column in zip(*paths, strict=True)])
    colour = torch.tensor(COLOURS[combination.colour])
    return LOW + (HIGH - LOW) * alpha[:, None] * colour[None, :, None, None]


def draw(
    chosen: Sequence[Combination], *, held_out: bool, generator: torch.Generator
) -> Float[Tensor, "B F 3 H W"]:
    """One video per combination, from pictures of one side of the split."""
    images, labels = pictures(held_out=held_out)
    videos = []
    for combination in chosen:
        fitting = torch.nonzero(labels == combination.digit).flatten()
        index = fitting[_below(len(fitting), generator)]
        videos.append(render(images[index], combination, generator))
    return torch.stack(videos)


def choose(
    among: Sequence[Combination], count: int, generator: torch.Generator
) -> list[Combination]:
    """`count` combinations with replacement."""
    return [among[_below(len(among), generator)] for _ in range(count)]


def write_prompts(folder: Path) -> None:
    """Prompt files of both sides of the split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, side in (("digits_train", False), ("digits_heldout", True)):
        lines = [
            json.dumps(
                {
                    "text": one.caption,
                    "metadata": {
                        "digit": one.digit,
                        "colour": one.colour,
                        "direction": one.direction,
                    },
                }
            )
            for one in combinations(held_out=side)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _place(glyph: Float[Tensor, "S S"], row: Tensor, column: Tensor) -> Float[Tensor, "H W"]:
    """The glyph on an empty frame, its corner at (row, column), by bilinear interpolation."""
    pixel = torch.arange(SIDE) + 0.5
    rows = (pixel - row) / GLYPH * 2 - 1
    columns = (pixel - column) / GLYPH * 2 - 1
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    return grid_sample(glyph[None, None], grid, align_corners=False)[0, 0]


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator).item())
