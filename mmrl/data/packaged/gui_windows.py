"""Windows of `gui_grounding`'s screens around one element each, for models that see little."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from mmrl.data.packaged import gui_grounding
from mmrl.data.packaged.dataset import write_jsonl

WIDTH, HEIGHT = 256, 144
"""Pixels of a window; the pixels themselves stay as they are."""
MARGIN = 4
WINDOWS = {"train": 3, "test": 1}
"""How many windows show an element, each with the element at another place."""
SIDES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl of windows; the whole screens and their prompts are removed.

    The splits are those of `gui_grounding`. An element that does not fit a window is left out.
    """
    gui_grounding.write_prompts(folder)
    counts, left_out = {}, 0
    chooser = random.Random(0)
    for side, many in WINDOWS.items():
        lines = (folder / f"{side}.jsonl").read_text("utf-8").splitlines()
        entries = []
        for number, entry in enumerate(map(json.loads, lines)):
            found = windows(folder, entry, f"{side}/{number}", many, chooser)
            left_out += not found
            entries += found
        counts[side] = write_jsonl(folder / f"{side}.jsonl", entries)
    for name in gui_grounding.SIDES.values():
        shutil.rmtree(folder / name)
    return counts | {"left out, element larger than a window": left_out}


def windows(
    folder: Path, entry: dict[str, Any], name: str, many: int, chooser: random.Random
) -> list[dict[str, Any]]:
    """Prompts like `entry`, their pictures cut around its element; none if it is too large."""
    metadata = entry["metadata"]
    x1, y1, x2, y2 = (metadata[side] for side in SIDES)
    if x2 - x1 > WIDTH - 2 * MARGIN or y2 - y1 > HEIGHT - 2 * MARGIN:
        return []
    made = []
    with Image.open(folder / entry["images"][0]) as screen:
        for number in range(many):
            left = start(x1, x2, WIDTH, screen.width, chooser)
            top = start(y1, y2, HEIGHT, screen.height, chooser)
            path = Path("windows") / f"{name}_{number}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            window = screen.convert("RGB").crop((left, top, left + WIDTH, top + HEIGHT))
            window.save(folder / path)
            box = (x1 - left, y1 - top, x2 - left, y2 - top)
            moved = dict(zip(SIDES, (round(side, 3) for side in box), strict=True))
            sizes = {"width": WIDTH, "height": HEIGHT}
            made.append(
                entry | {"images": [path.as_posix()], "metadata": {**metadata, **moved, **sizes}}
            )
    return made


def start(first: float, last: float, length: int, whole: int, chooser: random.Random) -> int:
    """Where a window of `length` begins that holds first .. last with its margin, at random."""
    lowest = max(0, int(last) + 1 + MARGIN - length)
    highest = max(lowest, min(whole - length, int(first) - MARGIN))
    return min(chooser.randint(lowest, highest), whole - length)


DATASET = replace(
    gui_grounding.DATASET,
    summary="windows of those screens, 256 x 144 pixels around one element",
    write_prompts=write_prompts,
)
