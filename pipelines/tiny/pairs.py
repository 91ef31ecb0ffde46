"""Write assets/pairs, preferred and rejected videos of the digit world.

`python -m pipelines.tiny.pairs`: for every training prompt a real video of it, and one that shows
another colour or moves another way. Handwriting is the train side's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from mmrl.data.video import encode_webp
from pipelines.tiny.world import COLOURS, DIRECTIONS, Combination, combinations, draw

FOLDER = Path("assets/pairs")


def other(one: Combination, generator: torch.Generator) -> Combination:
    """The same digit in another colour, moving another way."""
    colours = [name for name in COLOURS if name != one.colour]
    directions = [name for name in DIRECTIONS if name != one.direction]
    picks = torch.randint(3, (2,), generator=generator).tolist()
    return replace(one, colour=colours[picks[0]], direction=directions[picks[1]])


def main() -> None:
    """Write the videos and pairs.jsonl."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number, one in enumerate(combinations(held_out=False)):
        pair = [one, other(one, generator)]
        names = [f"{number:03d}_{kind}.webp" for kind in ("preferred", "rejected")]
        videos = draw(pair, held_out=False, generator=generator)
        for name, video in zip(names, videos, strict=True):
            (FOLDER / name).write_bytes(encode_webp(video, fps=8))
        lines.append(json.dumps({"text": one.caption, "videos": names}))
    (FOLDER / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
