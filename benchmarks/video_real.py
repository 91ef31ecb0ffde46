"""Do the alignment scores know which real video belongs to which prompt?

The suite is `mmrl data fetch video_real`: generated videos with their prompts. The adapter of
`clip_adapter` was fitted without them and without anything near them. Frames are embedded once
and kept in the cache folder. Prints the table of docs/video_real.md.

    mmrl data fetch video_real clip_b16_image minilm mobilenet_v2    # one after the other
    python -m benchmarks.video_real
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmrl.data.files import cache_folder
from mmrl.data.video import read_video
from mmrl.evaluate.alignment import Interval, retrieval
from mmrl.reward import load_reward

SLICES = {"t2v": ("t2v",), "t2v and i2v": ("t2v", "i2v"), "all": ("t2v", "i2v", "edit")}
SCORES = ("clip_adapter", "conse_alignment")


@runtime_checkable
class Aligner(Protocol):
    """A reward that embeds prompts and videos in one space."""

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "N D"]: ...

    def pictures(self, videos: Sequence[Float[Tensor, "F 3 H W"]]) -> Float[Tensor, "N D"]: ...


def load_suite() -> tuple[list[str], list[Tensor], np.ndarray]:
    """Prompts, videos (the frames that are looked at), and the kind of each."""
    folder = cache_folder() / "video_real"
    lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    matched = [entry for entry in entries if entry["metadata"]["pair"] == "matched"]
    videos = [read_video(folder / entry["video"], 4) for entry in matched]
    kinds = np.array([entry["metadata"]["kind"] for entry in matched])
    return [entry["prompt"] for entry in matched], videos, kinds


def main() -> None:
    """Print a row a score and slice."""
    prompts, videos, kinds = load_suite()
    print("| score | slice | prompts | R@1 | R@5 | AUC |\n|---|---|---|---|---|---|")
    for name in SCORES:
        reward = load_reward(name, cache="disk", num_frames=4)
        assert isinstance(reward, Aligner)
        table = (reward.texts(prompts) @ reward.pictures(videos).T).numpy()
        for title, wanted in SLICES.items():
            chosen = np.flatnonzero(np.isin(kinds, wanted))
            found = retrieval([table[np.ix_(chosen, chosen)]])
            cells = " | ".join(map(told, (found.at_1, found.at_5, found.auc)))
            print(f"| `{name}` | {title} | {found.prompts} | {cells} |")


def told(interval: Interval) -> str:
    """A mean with its 95 % interval."""
    mean, low, high = interval
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
