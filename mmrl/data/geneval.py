"""GenEval's rules: how many objects, of what colour, where (arXiv:2310.11513)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


def correct(clauses: Sequence[Clause], detections: Sequence[Detection], *, strict: bool) -> bool:
    """Whether every clause holds: at least its count, or with `strict` exactly."""
    return all(score == 1.0 for score in clause_scores(clauses, detections, strict=strict))


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
