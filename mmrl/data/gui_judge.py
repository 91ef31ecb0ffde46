"""Does an action agree with the recorded one: type, value and place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mmrl.data.coordinates import Border, Coordinates, Point, in_picture
from mmrl.data.gui import ACTIONS, Action, Reference, Target
from mmrl.data.text_match import as_number

KEY_NAMES = {"return": "enter", "esc": "escape", "del": "delete", "spacebar": "space"}


@dataclass(frozen=True)
class Verdict:
    """Which parts of an action are right; a part that an action does not have is right."""

    type: bool
    value: bool
    point: bool

    @property
    def step(self) -> bool:
        """Type, value and point."""
        return self.type and self.value and self.point


WRONG = Verdict(type=False, value=False, point=False)


def judge(
    action: Action | None,
    reference: Reference,
    coordinates: Coordinates,
    *,
    radius: float,
    threshold: float,
    above: bool,
    border: Border,
) -> Verdict:
    """Compare an action with the recorded one.

    A required point must lie in the box, or nearer than `radius` to a recorded point; an optional
    one only where the model wrote one and the box is known. `threshold`: least F1 of texts;
    `above` asks for more than it.
    """
    if action is None or action.type != reference.type:
        return WRONG
    rule = ACTIONS[reference.type]
    value = _values_agree(action.value, reference.value, rule.value, threshold, above)
    point = True
    asked = reference.target.box is not None or reference.target.point is not None
    if rule.point == "required" or (rule.point == "optional" and asked and action.point):
        point = hits(action.point, reference.target, coordinates, radius=radius, border=border)
    return Verdict(type=True, value=value, point=point)


def hits(
    point: Point | None,
    target: Target,
    coordinates: Coordinates,
    *,
    radius: float,
    border: Border,
) -> bool:
    """Whether a written point is in the target's box, or near its point where it has no box.

    A point outside the picture hits nothing. ValueError for a target without box and point.
    """
    if point is None:
        return False
    x, y = coordinates.to_unit(point, target.size, target.resized)
    if not in_picture((x, y)):
        return False
    if target.box is not None:
        return target.box.holds((x, y), border)
    if target.point is None:
        raise ValueError("the reference has neither a box nor a point to hit")
    return (x - target.point[0]) ** 2 + (y - target.point[1]) ** 2 < radius**2


def text_f1(found: str, reference: str) -> float:
    """2 P R / (P + R) over multisets of words; 1 for two empty texts."""
    ours, theirs = words(found), words(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def words(text: str) -> list[str]:
    """Lower-case words without square brackets."""
    return text.lower().replace("[", "").replace("]", "").split()


def _values_agree(found: str, reference: str, how: str, threshold: float, above: bool) -> bool:
    if how == "free":
        return True
    if how == "direction":
        return found.strip().lower() == reference.strip().lower()
    if how == "key":
        return _key(found) == _key(reference)
    if how == "seconds":
        return _same_seconds(found, reference)
    score = text_f1(found, reference)
    if score > threshold or (score == threshold and not above):
        return True
    return how == "sentence" and _inside(words(reference), words(found))


def _inside(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words of `part` stand together and in order in `whole`; punctuation aside."""
    part, whole = _bare(part), _bare(whole)
    starts = range(len(whole) - len(part) + 1)
    return bool(part) and any(whole[start : start + len(part)] == part for start in starts)


def _bare(texts: Sequence[str]) -> list[str]:
    """Words without quotes, brackets and stops around them; ".5" keeps its point."""
    bare = (text.lstrip("\"'(").rstrip("\"').,;:!?") for text in texts)
    return [text for text in bare if text]


def _same_seconds(found: str, reference: str) -> bool:
    """Equal numbers, "2 seconds" being 2; a record that names no time leaves it free."""
    if reference.strip().lower() in ("", "none"):
        return True
    expected = as_number(reference)
    if expected is None:
        return words(found) == words(reference)
    return as_number(found) == expected


def _key(name: str) -> str:
    name = re.sub(r"[\s_-]+", "", name.lower())
    return KEY_NAMES.get(name, name)
