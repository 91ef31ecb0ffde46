"""How much do a CadQuery program's solid and the reference have in common?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.cad import judge_answer
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("cad_geometry")
class CadGeometry(RewardConfig):
    """Intersection over union of the two solids' volumes, in [0, 1] (CAD-RL, arXiv:2508.10118).

    Volumes are exact, from the kernel's booleans, in the programs' own frames: nothing is aligned.
    A program that does not execute has 0, a prompt without a reference program NaN.
    """

    reads_reference: ClassVar[bool] = True
    seconds: float = Field(default=30.0, gt=0)
    """Of one process; a program past it does not execute."""

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        found = judge_answer(sample.text, sample.prompt.answer, seconds=self.seconds)
        return math.nan if found is None else found.iou
