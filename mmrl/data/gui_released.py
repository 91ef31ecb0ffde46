"""GUI-Libra's step rule as its released code has it, faults and all, to compare with.

Read from seooyxx/GUI-Libra at 14566cfa. `mmrl.data.gui_judge` and `mmrl.data.gui.complete` are
what mmrl uses; docs/errata.md lists the differences.
"""

from __future__ import annotations

import json
import re

from mmrl.data.coordinates import Coordinates
from mmrl.data.gui import KEYS, Reference, canonical_type

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
TYPE = re.compile(r'"action_type"\s*:\s*"([^"]*)"')
VALUE = re.compile(r'"value"\s*:\s*"([^"]*)"')
POINT = re.compile(r'"point_2d"\s*:\s*\[\s*(-?\d+)\s*,\s*(-?\d+)\s*\]')
PLACED = ("click", "longpress")
TEXTS = ("write", "select", "scroll", "openapp", "swipe", "terminate", "answer")
RADIUS = 0.05
THRESHOLD = 0.5


def accuracy(text: str, reference: Reference, coordinates: Coordinates) -> bool:
    """Fields found by patterns in the first answer block; a point that cannot be read is (0, 0)."""
    block = _first(ANSWER, text, "")
    kind = _first(TYPE, block, "no action").lower()
    if kind != canonical_type(reference.type):
        return False
    if kind in PLACED:
        return _placed(block, reference, coordinates)
    if kind in TEXTS:
        value = _first(VALUE, block, "no input text")
        return text_f1(value, _decoded(reference.value)) >= THRESHOLD
    return True


def well_formed(text: str, *, tag: str, grounding: bool) -> bool:
    """Blocks may be empty and repeat; integers include booleans."""
    found = re.match(rf"(?:<{tag}>.*?</{tag}>)?\s*<answer>(.*?)</answer>$", text, re.DOTALL)
    thinks = f"<{tag}>" in text and f"</{tag}>" in text
    return found is not None and _complete(found[1]) and thinks != grounding


def text_f1(found: str, reference: str) -> float:
    """F1 over sets of words; one word inside the other is 1, and two empty texts are 0."""
    ours, theirs = (
        set(text.lower().replace("[", "").replace("]", "").split()) for text in (found, reference)
    )
    if len(ours) == len(theirs) == 1:
        [one], [other] = ours, theirs
        if one in other or other in one:
            return 1.0
    shared = len(ours & theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def _placed(block: str, reference: Reference, coordinates: Coordinates) -> bool:
    found, target = POINT.search(block), reference.target
    point = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    x, y = coordinates.to_unit(point, target.size, target.resized)
    if target.box is not None:
        return target.box.holds((x, y), "strict")
    if target.point is None:
        return False
    return (x - target.point[0]) ** 2 + (y - target.point[1]) ** 2 < RADIUS**2


def _complete(block: str) -> bool:
    try:
        found = json.loads(block)
    except ValueError:
        return False
    if not isinstance(found, dict) or not all(key in found for key in KEYS):
        return False
    point = found["point_2d"]
    whole = isinstance(point, list) and len(point) == 2 and all(isinstance(n, int) for n in point)
    return (whole or point == "none") and all(isinstance(found[key], str) for key in KEYS[:3])


def _decoded(text: str) -> str:
    """A backslash makes the whole text be read as escapes, which garbles its other letters."""
    return text.encode().decode("unicode_escape") if "\\" in text else text


def _first(pattern: re.Pattern[str], text: str, missing: str) -> str:
    found = pattern.search(text)
    return found[1] if found else missing
