"""GenEval's rules: how many objects, of what colour, where (arXiv:2310.11513)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; rows grow downward."""
Relation = Literal["left of", "right of", "above", "below"]
SHRINK = 0.1
ALIGNED = 0.5


@dataclass(frozen=True)
class Detection:
    """One object a detector found."""

    label: str
    box: Box
    score: float
    color: str | None = None


@dataclass(frozen=True)
class Clause:
    """`count` objects of a class; of a colour, or on one side of an earlier clause's objects."""

    label: str
    count: int = 1
    color: str | None = None
    relation: Relation | None = None
    other: int | None = None
    """Which earlier clause the relation is to."""


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for: every clause of `include`, and none of `exclude` reached."""

    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()
    """Classes with the count that is one too many."""
    tag: str = ""
    """GenEval's task: single_object, two_object, counting, colors, position, color_attr."""


def read_wanted(entry: Any) -> Wanted:
    """Clauses as a list of their fields, or GenEval's own metadata: include, exclude, tag.

    ValueError names a clause that is none, or whose relation is to no earlier clause.
    """
    tree = entry if isinstance(entry, Mapping) else {"include": entry}
    found = [_clauses(tree.get(name) or ()) for name in ("include", "exclude")]
    return Wanted(*found, tag=str(tree.get("tag", "")))


def _clauses(entries: Any) -> tuple[Clause, ...]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError(f"GenEval's clauses are a list, got {entries!r:.80}")
    return tuple(_clause(index, entry) for index, entry in enumerate(entries))


def _clause(index: int, entry: Any) -> Clause:
    """GenEval writes `class` for the label, and `position` for the relation and its target."""
    fields = dict(entry) if isinstance(entry, Mapping) else {}
    label = fields.pop("label", None) or fields.pop("class", None)
    relation, other = fields.pop("position", None) or (
        fields.pop("relation", None),
        fields.pop("other", None),
    )
    count, color = fields.pop("count", 1), fields.pop("color", None)
    if not isinstance(label, str) or not isinstance(count, int) or count < 1 or fields:
        raise ValueError(f"no clause of GenEval: {entry!r:.120}")
    target = relation is None or (isinstance(other, int) and 0 <= other < index)
    if not target or relation not in (None, *get_args(Relation)):
        raise ValueError(f"a relation is one of four to an earlier clause: {entry!r:.120}")
    return Clause(label, count, color, relation, other)


def relations(box: Box, other: Box, *, shrink: float = SHRINK) -> set[Relation]:
    """Where `box` lies as seen from `other`; empty where they lie on one another.

    The offset of the centres, less `shrink` of both sizes, over the length of the whole offset;
    a component beyond 0.5 counts, so a diagonal neighbour has two relations.
    """
    offset = [(box[i] + box[i + 2] - other[i] - other[i + 2]) / 2 for i in (0, 1)]
    sizes = [box[i + 2] - box[i] + other[i + 2] - other[i] for i in (0, 1)]
    length = math.hypot(*offset)
    if length == 0:
        return set()
    left = [
        max(abs(d) - shrink * s, 0.0) * math.copysign(1, d) / length
        for d, s in zip(offset, sizes, strict=True)
    ]
    found: set[Relation] = set()
    if abs(left[0]) > ALIGNED:
        found.add("left of" if left[0] < 0 else "right of")
    if abs(left[1]) > ALIGNED:
        found.add("above" if left[1] < 0 else "below")
    return found


def iou(box: Box, other: Box) -> float:
    """Intersection over union with both edge pixels inside, as GenEval counts them."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    common = max(width, 0.0) * max(height, 0.0)
    return common / (_area(box) + _area(other) - common)


def soft_count(required: int, found: int) -> float:
    """1 - |required - found| / required, below 0 from twice as many on."""
    if required < 1:
        raise ValueError(f"a clause asks for at least one object, got {required}")
    return 1 - abs(required - found) / required


def correct(
    clauses: Sequence[Clause],
    detections: Sequence[Detection],
    *,
    strict: bool,
    exclude: Sequence[Clause] = (),
) -> bool:
    """Whether every clause holds, at least its count or with `strict` exactly, and no class of
    `exclude` is there as often as its count."""
    counts = Counter(detection.label for detection in detections)
    scores = clause_scores(clauses, detections, strict=strict)
    return all(score == 1.0 for score in scores) and not any(
        counts[clause.label] >= clause.count for clause in exclude
    )


def clause_scores(
    clauses: Sequence[Clause], detections: Sequence[Detection], *, strict: bool = True
) -> list[float]:
    """One number in [0, 1] a clause: its count, and of its best objects the share that fits.

    `strict` counts too many objects as too few; without it they are as good as enough.
    """
    chosen: list[list[Detection]] = []
    scores = []
    for clause in clauses:
        found = sorted((d for d in detections if d.label == clause.label), key=lambda d: -d.score)
        best = found[: clause.count]
        number = len(found) if strict else min(len(found), clause.count)
        score = max(soft_count(clause.count, number), 0.0)
        if clause.color is not None:
            score *= sum(d.color == clause.color for d in best) / clause.count
        if clause.relation is not None and clause.other is not None:
            score *= float(_stands(clause.relation, best, chosen[clause.other]))
        chosen.append(best)
        scores.append(score)
    return scores


def _stands(relation: Relation, ours: Sequence[Detection], theirs: Sequence[Detection]) -> bool:
    pairs = [(one.box, other.box) for one in ours for other in theirs]
    return bool(pairs) and all(relation in relations(one, other) for one, other in pairs)


def _area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
