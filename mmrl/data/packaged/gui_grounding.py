"""Rendered screens with a box for every element, in the package openadapt-grounding."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrl.data.packaged.dataset import Dataset, digest, write_jsonl

SIDES = {"train": "synthetic", "test": "synthetic_hard"}


def write_prompts(folder: Path) -> dict[str, int]:
    """Train on `synthetic`, test on `synthetic_hard`; screens of the test side leave train.

    Both folders were drawn with the same seeds, so they share screens: same picture, or same
    elements at the same places. An instruction that fits two elements of a screen has no one box
    and is left out.
    """
    screens = {side: _screens(folder, name) for side, name in SIDES.items()}
    shown = {key for screen in screens["test"] for key in _identities(folder, screen)}
    kept = [s for s in screens["train"] if not shown & _identities(folder, s)]
    shared = len(screens["train"]) - len(kept)
    screens["train"] = kept
    counts, ambiguous = {}, 0
    for side, found in screens.items():
        entries = [entry for screen in found for entry in _entries(screen)]
        counts[side] = write_jsonl(folder / f"{side}.jsonl", entries)
        counts[f"{side} screens"] = len(found)
        ambiguous += sum(len(screen["elements"]) for screen in found) - len(entries)
    return counts | {
        "left out of train, screens of the test side": shared,
        "left out, instruction fits several elements": ambiguous,
    }


def _screens(folder: Path, name: str) -> list[dict[str, Any]]:
    content = json.loads((folder / name / "annotations.json").read_text(encoding="utf-8"))
    return [s | {"image": f"{name}/{s['image_path']}", "set": name} for s in content["samples"]]


def _identities(folder: Path, screen: dict[str, Any]) -> set[str]:
    """What tells a screen: its bytes, and the places and texts of its elements."""
    layout = sorted((e["bbox"], e["text"]) for e in screen["elements"])
    return {digest(folder / screen["image"]), json.dumps(layout)}


def _entries(screen: dict[str, Any]) -> Iterator[dict]:
    asked = Counter(element["instruction"] for element in screen["elements"])
    for element in screen["elements"]:
        if asked[element["instruction"]] == 1:
            yield _entry(screen, element)


def _entry(screen: dict[str, Any], element: dict[str, Any]) -> dict:
    """Boxes come as shares of width and height: left, top, width, height."""
    width, height = screen["width"], screen["height"]
    left, top, wide, tall = element["bbox"]
    return {
        "text": element["instruction"],
        "images": [screen["image"]],
        "metadata": {
            "action_type": "Click",
            "is_grounding": True,
            "bbox_x1": round(left * width, 3),
            "bbox_y1": round(top * height, 3),
            "bbox_x2": round((left + wide) * width, 3),
            "bbox_y2": round((top + tall) * height, 3),
            "width": width,
            "height": height,
            "element_type": element["element_type"],
            "difficulty": screen["metadata"]["difficulty"],
            "theme": screen["metadata"]["theme"],
            "screen": f"{screen['set']}/{screen['id']}",
            "question_type": "grounding",
        },
    }


DATASET = Dataset(
    package="openadapt-grounding",
    version="0.1.2",
    archive="openadapt_grounding-0.1.2.tar.gz",
    sha256="2dc15fb284a6ed01ce031006949ff7cc52d4435ea13334c5d8533e905ece03b5",
    license="MIT",
    prefix="openadapt_grounding-0.1.2/evaluation/datasets/",
    megabytes=5,
    summary="GUI grounding: rendered screens, an instruction and a box an element",
    write_prompts=write_prompts,
)
