"""Is a GUI action the recorded one: type, value and place?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data import gui_released
from mmrl.data.coordinates import Border, Coordinates
from mmrl.data.gui import parse_action, read_reference
from mmrl.data.gui_judge import judge
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("gui_step")
class GuiStep(RewardConfig):
    """1 where type, value and point of the step are right, else 0 (GUI-Libra, arXiv:2602.22190).

    The answer block must be JSON, unless `salvage` reads fields out of a broken one. A point must
    lie in the recorded box, or within `radius` of the recorded point. Texts need an F1 of
    `threshold`, or more than it with `above` (the paper's words); keys and directions must be
    equal. `part` scores one of the three alone; on another type it is 0. `released` is the
    authors' code, which knows neither `part` nor `border`.
    The prompt's metadata are those of `mmrl.data.gui.read_reference`; faulty ones score NaN.
    """

    part: Literal["step", "type", "value", "point"] = "step"
    coordinates: Coordinates = Coordinates()
    border: Border = "half_open"
    radius: float = Field(default=0.05, gt=0)
    threshold: float = Field(default=0.5, ge=0, le=1)
    above: bool = False
    salvage: bool = False
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        reference = read_reference(sample.prompt)
        if self.variant == "released":
            return float(gui_released.accuracy(sample.text, reference, self.coordinates))
        verdict = judge(
            parse_action(sample.text, salvage=self.salvage),
            reference,
            self.coordinates,
            radius=self.radius,
            threshold=self.threshold,
            above=self.above,
            border=self.border,
        )
        return float(getattr(verdict, self.part))
