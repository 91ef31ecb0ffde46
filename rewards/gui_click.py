"""Does a click land in its box?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.coordinates import Border, Coordinates, Point
from mmrl.data.gui import parse_action, read_target
from mmrl.data.gui_judge import hits
from mmrl.data.numbers import NUMBER
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

PAIR = re.compile(rf"[\[(]\s*({NUMBER})\s*,\s*({NUMBER})\s*[\])]")


@rewards.register("gui_click")
class GuiClick(RewardConfig):
    """1 where the written point lies in the target's box, else 0 (ScreenSpot-Pro's rule).

    All four borders count as inside. The point is that of GUI-Libra's action, or without an
    action the first bracketed pair of numbers; no point, or one outside the picture, is 0. A
    prompt without a box (`mmrl.data.gui.read_target`) scores NaN.
    """

    coordinates: Coordinates = Coordinates()
    border: Border = "inclusive"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        target = read_target(sample.prompt.metadata)
        if target.box is None:
            return float("nan")
        point = written_point(sample.text)
        return float(hits(point, target, self.coordinates, radius=0.0, border=self.border))


def written_point(text: str) -> Point | None:
    """The point of the action in the answer block, else the first pair of numbers in brackets."""
    action = parse_action(text)
    if action is not None:
        return action.point
    found = PAIR.search(text)
    return None if found is None else (float(found[1]), float(found[2]))
