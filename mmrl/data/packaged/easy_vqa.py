"""Questions about one colored shape in a small picture, in the package easy-vqa."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mmrl.data.packaged.dataset import Dataset, digest, write_jsonl

TYPES = {"yes": "yes or no", "no": "yes or no"} | dict.fromkeys(
    ("circle", "rectangle", "triangle"), "shape"
)


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl as the package splits them; no picture stands on both sides."""
    pictures = {
        side: {digest(file) for file in (folder / side / "images").glob("*.png")}
        for side in ("train", "test")
    }
    assert not pictures["train"] & pictures["test"], "the pinned package shares no picture"
    counts = {
        side: write_jsonl(folder / f"{side}.jsonl", _entries(folder, side)) for side in pictures
    }
    return counts | {f"{side} pictures": len(found) for side, found in pictures.items()}


def _entries(folder: Path, side: str) -> Iterator[dict]:
    """The other answers are the eight colors."""
    content = (folder / side / "questions.json").read_text(encoding="utf-8")
    for question, answer, picture in json.loads(content):
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
