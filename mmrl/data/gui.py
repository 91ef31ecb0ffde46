"""GUI actions: what a model writes, and what a data set recorded.

The schema is GUI-Libra's (arXiv:2602.22190): one JSON object in an answer block with the keys
`action_description`, `action_type`, `value` and `point_2d`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmrl.data.answers import answer_block
from mmrl.data.coordinates import Box, Coordinates, ImageSize, Point, in_picture
from mmrl.data.prompts import DataError
from mmrl.types import Prompt

KEYS = ("action_description", "action_type", "value", "point_2d")
NO_POINT = (-100.0, -100.0)
"""Besides the word "none", how a model or a record says that an action has no place."""


@dataclass(frozen=True)
class Rule:
    """What an action needs besides its type."""

    value: Literal["free", "text", "sentence", "key", "direction", "seconds"]
    """How its value is compared; `free` is not."""
    point: Literal["required", "optional", "none"]


ACTIONS = {
    "answer": Rule("sentence", "none"),
    "click": Rule("free", "required"),
    "select": Rule("text", "optional"),
    "longpress": Rule("free", "required"),
    "write": Rule("text", "optional"),
    "keyboardpress": Rule("key", "none"),
    "scroll": Rule("direction", "none"),
    "swipe": Rule("direction", "optional"),
    "wait": Rule("seconds", "none"),
    "navigatehome": Rule("free", "none"),
    "navigateback": Rule("free", "none"),
    "openapp": Rule("text", "none"),
    "terminate": Rule("text", "none"),
}
ALIASES = {
    "long_press": "longpress",
    "open_app": "openapp",
    "type": "write",
    "press_back": "navigateback",
    "pressback": "navigateback",
    "press_home": "navigatehome",
    "presshome": "navigatehome",
}
SALVAGE = {
    "action_type": re.compile(r'"action_type"\s*:\s*"([^"]*)"'),
    "value": re.compile(r'"value"\s*:\s*"((?:[^"\\]|\\.)*)"'),
    "point_2d": re.compile(r'"point_2d"\s*:\s*(\[[^\]]*\])'),
}


@dataclass(frozen=True)
class Action:
    """One step as the model wrote it; the point is in the model's own space."""

    type: str
    value: str = ""
    point: Point | None = None


@dataclass(frozen=True)
class Target:
    """Where a click belongs, in [0, 1], and the picture's size."""

    box: Box | None
    point: Point | None
    size: ImageSize | None
    resized: ImageSize | None
    """The picture as the model sees it, where the data say so."""


@dataclass(frozen=True)
class Reference:
    """The recorded action of a step."""

    type: str
    value: str
    target: Target
    grounding: bool
    """The prompt asks for a place alone, so the answer has no reasoning."""


def canonical_type(name: str) -> str:
    """Lower case, and the schema's own word for an alias."""
    name = name.strip().lower()
    return ALIASES.get(name, name)


def parse_action(text: str, *, salvage: bool = False) -> Action | None:
    """The action in the one answer block; None where there is none that can be read.

    A missing or null value is empty; a point must be two finite numbers. `salvage` reads fields
    out of an object that is no valid JSON.
    """
    block = answer_block(text)
    found = None if block is None else read_object(block)
    if found is None and salvage and block is not None:
        found = _salvaged(block)
    if found is None or not isinstance(found.get("action_type"), str):
        return None
    value = found.get("value")
    return Action(
        canonical_type(found["action_type"]),
        "" if value is None else str(value),
        read_point(found.get("point_2d")),
    )


def read_object(text: str) -> dict[str, Any] | None:
    """The JSON object a text is, or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_point(value: Any) -> Point | None:
    """Two finite numbers that are no booleans; None for anything else and for the no-point mark."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
        return None
    x, y = map(float, value)
    return None if (x, y) == NO_POINT else (x, y)


def complete(block: str | None) -> bool:
    """Whether an answer block is an object with all four keys, each of its kind."""
    found = None if block is None else read_object(block)
    if found is None or not all(isinstance(found.get(key), str) for key in KEYS[:3]):
        return False
    point = found.get("point_2d")
    return point == "none" or (
        isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))
    )


def read_target(metadata: Mapping[str, str | int | float]) -> Target:
    """Box, point and sizes of a prompt's metadata, in [0, 1].

    Keys: `bbox_x1 .. bbox_y2`, `point_x, point_y`, `width, height`, `resized_width,
    resized_height`, and `space`, in which box and point are written (pixel if not said). The pair
    (-100, -100) is no point. ValueError for a box, a point or a size that cannot be.
    """
    size, resized = _size(metadata, ""), _size(metadata, "resized_")
    space = metadata.get("space", "pixel")
    if space not in ("unit", "thousand", "pixel"):
        raise ValueError(f"space must be unit, thousand or pixel, got {space!r}")
    written = Coordinates(space=space)
    sides = _numbers(metadata, ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"))
    place = _numbers(metadata, ("point_x", "point_y"))
    box = None if sides is None else written.box((sides[0], sides[1], sides[2], sides[3]), size)
    point = None
    if place is not None and tuple(place) != NO_POINT:
        point = written.to_unit((place[0], place[1]), size)
        if not in_picture(point):
            raise ValueError(f"a point must lie inside its picture, in [0, 1] it is {point}")
    return Target(box, point, size, resized)


def read_reference(prompt: Prompt) -> Reference:
    """The recorded action: keys of `read_target`, `action_type`, `value` and `is_grounding`.

    ValueError for a missing or unknown type, and for a click without a place.
    """
    metadata = prompt.metadata
    name = metadata.get("action_type")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the reference has no action_type: {prompt.text[:60]!r}")
    kind = canonical_type(name)
    if kind not in ACTIONS:
        raise ValueError(f"unknown action_type {name!r} (known: {', '.join(ACTIONS)})")
    grounding = metadata.get("is_grounding", False)
    if not isinstance(grounding, bool):
        raise ValueError(f"is_grounding must be true or false, got {grounding!r}")
    target = read_target(metadata)
    if ACTIONS[kind].point == "required" and target.box is None and target.point is None:
        raise ValueError(f"a {kind} needs a box or a point, the reference has none")
    return Reference(kind, str(metadata.get("value", "")), target, grounding)


def check_references(prompts: Sequence[Prompt]) -> None:
    """DataError names the first prompt whose recorded action cannot be scored."""
    for number, prompt in enumerate(prompts, start=1):
        try:
            read_reference(prompt)
        except ValueError as error:
            raise DataError(f"prompt {number} of {len(prompts)}: {error}") from error


def libra_metadata(row: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Metadata of a prompt from an answer row of GUI-Libra's own data files.

    There `gt_bbox` is on 0..1000, `gt_point_2d` on 0..1 and `*_new` the resized size.
    """
    found: dict[str, Any] = {"space": "unit", "value": row.get("gt_input_text") or ""}
    names = {"gt_action": "action_type", "is_grounding": "is_grounding"}
    names |= {"image_width": "width", "image_height": "height"}
    names |= {"image_width_new": "resized_width", "image_height_new": "resized_height"}
    found |= {ours: row[theirs] for theirs, ours in names.items() if row.get(theirs) is not None}
    if row.get("gt_bbox"):
        sides = [side / 1000 for side in row["gt_bbox"]]
        found |= dict(zip(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), sides, strict=True))
    if row.get("gt_point_2d"):
        found |= dict(zip(("point_x", "point_y"), row["gt_point_2d"], strict=True))
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _salvaged(block: str) -> dict[str, Any]:
    found = {key: pattern.search(block) for key, pattern in SALVAGE.items()}
    read = {key: match[1] for key, match in found.items() if match}
    if "point_2d" in read:
        try:
            read["point_2d"] = json.loads(read["point_2d"])
        except ValueError:
            del read["point_2d"]
    return read


def _size(metadata: Mapping[str, str | int | float], prefix: str) -> ImageSize | None:
    found = _numbers(metadata, (f"{prefix}width", f"{prefix}height"))
    return None if found is None else ImageSize(int(found[0]), int(found[1]))


def _numbers(metadata: Mapping[str, str | int | float], names: Sequence[str]) -> list[float] | None:
    """All of the named numbers, or None where none is there; ValueError for some of them."""
    there = [name for name in names if metadata.get(name) is not None]
    if not there:
        return None
    if len(there) < len(names) or not all(_is_number(metadata[name]) for name in names):
        raise ValueError(f"the metadata needs {', '.join(names)} as numbers, all or none")
    return [float(metadata[name]) for name in names]
