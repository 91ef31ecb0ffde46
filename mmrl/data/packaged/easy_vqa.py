"""Questions about one colored shape in a small picture, in the package easy-vqa."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mmrl.data.duplicates import near_pairs, picture_print, stack
from mmrl.data.images import read_image
from mmrl.data.packaged.dataset import Dataset, write_jsonl

TYPES = {"yes": "yes or no", "no": "yes or no"} | dict.fromkeys(
    ("circle", "rectangle", "triangle"), "shape"
)


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl as the package splits them, and no scene on both sides.

    A training picture that looks like one of the test side is left out with its questions.
    color_train.jsonl and color_test.jsonl hold the questions that ask for a color.
    """
    files = {side: sorted((folder / side / "images").glob("*.png")) for side in ("train", "test")}
    train, test = (stack([picture_print(read_image(f)) for f in files[side]]) for side in files)
    near = {files["train"][row].stem for row, _ in near_pairs(train, test)}
    counts = {"left out of train, near copies of test pictures": len(near)}
    for side in files:
        entries = list(_entries(folder, side, without=near if side == "train" else set()))
        colors = [e for e in entries if e["metadata"]["question_type"] == "color"]
        counts[side] = write_jsonl(folder / f"{side}.jsonl", entries)
        counts[f"color {side}"] = write_jsonl(folder / f"color_{side}.jsonl", colors)
        counts[f"{side} pictures"] = len({entry["images"][0] for entry in entries})
    return counts


def _entries(folder: Path, side: str, *, without: set[str]) -> Iterator[dict]:
    """The other answers are the eight colors."""
    content = (folder / side / "questions.json").read_text(encoding="utf-8")
    for question, answer, picture in json.loads(content):
        if str(picture) in without:
            continue
        yield {
            "text": question,
            "images": [f"{side}/images/{picture}.png"],
            "answer": answer,
            "metadata": {"question_type": TYPES.get(answer, "color"), "picture": picture},
        }


DATASET = Dataset(
    package="easy-vqa",
    version="1.0",
    archive="easy_vqa-1.0-py3-none-any.whl",
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    license="MIT",
    prefix="easy_vqa/data/",
    megabytes=3,
    summary="one colored shape a picture, 13 answers, split by picture",
    write_prompts=write_prompts,
    only=("train/", "test/"),
)
