"""Write assets/small_digits, pictures with one handwritten digit somewhere in them.

`python -m pipelines.tiny.small_digits`. The digits are scikit-learn's, on the side of the split
that `world.pictures` gives them. A digit takes four ninths of its picture; a crop shows it larger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmrl.types import Prompt
from pipelines.tiny.world import pictures

FOLDER = Path("assets/small_digits")
SIDE, GLYPH = 12, 8
"""Pixels along a picture's side and a digit's."""
QUESTION = "Which digit is in the picture?"
COUNTS = {"train": 192, "heldout": 160}


@dataclass(frozen=True)
class Question:
    """One picture: what is asked, and a crop of its digit."""

    prompt: Prompt
    crop: Path


def main() -> None:
    """Both sides of the split as pictures and prompt files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, count in COUNTS.items():
        generator = torch.Generator().manual_seed(0)
        glyphs, labels = pictures(held_out=name == "heldout")
        order = torch.randperm(len(glyphs), generator=generator)[:count]
        lines = []
        for number, index in enumerate(order.tolist()):
            file = f"{name}_{number:03d}.png"
            as_image(place(glyphs[index], generator)).save(FOLDER / file)
            line = {"text": QUESTION, "images": [file], "answer": str(labels[index].item())}
            lines.append(json.dumps(line))
        (FOLDER / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_questions(
    folder: Path, count: int, *, held_out: bool, generator: torch.Generator
) -> list[Question]:
    """`count` freshly drawn pictures in `folder`, and a crop of each."""
    glyphs, labels = pictures(held_out=held_out)
    found = []
    for number in range(count):
        index = int(torch.randint(len(glyphs), (), generator=generator))
        path, crop = folder / f"{number:05d}.png", folder / f"{number:05d}_crop.png"
        as_image(place(glyphs[index], generator)).save(path)
        as_image(glyphs[index]).save(crop)
        prompt = Prompt(QUESTION, (path,), answer=str(labels[index].item()))
        found.append(Question(prompt, crop))
    return found


def place(glyph: Float[Tensor, "8 8"], generator: torch.Generator) -> Float[Tensor, "12 12"]:
    """The digit at a random place on black."""
    row, column = torch.randint(SIDE - GLYPH + 1, (2,), generator=generator).tolist()
    sheet = torch.zeros(SIDE, SIDE)
    sheet[row : row + GLYPH, column : column + GLYPH] = glyph
    return sheet


def as_image(values: Float[Tensor, "H W"]) -> Image.Image:
    """Values in [0, 1] as 8-bit grey."""
    return Image.fromarray((255 * values).round().to(torch.uint8).numpy())


if __name__ == "__main__":
    main()
