"""Gaussian rewards of a predicted box (GUI-G2): how near its centre, how well it covers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.coordinates import Box, Coordinates
from mmrl.data.gui import read_target
from mmrl.data.numbers import NUMBER
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({NUMBER})"] * 4) + r"\s*\]")
FORMAT = re.compile(r"\s*\[\s*\d+\s*(?:,\s*\d+\s*){3}\]\s*")


@rewards.register("gui_gaussian")
class GuiGaussian(RewardConfig):
    """Of the first [x1, y1, x2, y2] in a text: a Gaussian around the target box (GUI-G2).

    `point`: exp(-d^2 / 2), d the distance of the centres in half sides of the target. `coverage`:
    exp(-Bhattacharyya distance) of two Gaussians whose std are half sides. `format`: 1 where the
    whole text is a list of four whole numbers. Both are 1 for the target itself and do not
    change when both boxes are scaled. A text without a box of some area inside the picture is 0;
    a target without area scores NaN. The release rounds to three decimals and adds 1e-8.
    """

    part: Literal["point", "coverage", "format"] = "point"
    coordinates: Coordinates = Coordinates()

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        target = read_target(sample.prompt.metadata)
        if target.box is None or min(target.box.sides) <= 0:
            return float("nan")
        if self.part == "format":
            return float(FORMAT.fullmatch(sample.text) is not None)
        frame = self.coordinates.frame(target.size, target.resized)
        found = written_box(sample.text, frame)
        if found is None:
            return 0.0
        return (
            point_score(found, target.box) if self.part == "point" else coverage(found, target.box)
        )


def written_box(text: str, frame: tuple[float, float]) -> Box | None:
    """The first list of four numbers as a box in [0, 1]; None where it is no box with an area."""
    found = BOX.search(text)
    if found is None:
        return None
    x1, y1, x2, y2 = map(float, found.groups())
    try:
        box = Box(x1 / frame[0], y1 / frame[1], x2 / frame[0], y2 / frame[1])
    except ValueError:
        return None
    return box if min(box.sides) > 0 else None


def point_score(found: Box, target: Box) -> float:
    """exp(-1/2 sum ((centre offset) / (half side))^2)."""
    offsets = zip(found.center, target.center, target.sides, strict=True)
    return math.exp(-sum(((a - b) / (side / 2)) ** 2 for a, b, side in offsets) / 2)


def coverage(found: Box, target: Box) -> float:
    """exp(-(offset^2 / (8 mean variance) + ln(mean variance / (s1 s2)) / 2)), both axes added."""
    total = 0.0
    axes = zip(found.center, target.center, found.sides, target.sides, strict=True)
    for a, b, ours, theirs in axes:
        mean = ((ours / 2) ** 2 + (theirs / 2) ** 2) / 2
        total += (a - b) ** 2 / (8 * mean) + math.log(mean / (ours * theirs / 4)) / 2
    return math.exp(-total)
