"""Does a CadQuery program run and make a valid solid?"""

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


@rewards.register("cad_executes")
class CadExecutes(RewardConfig):
    """1 where the program leaves a valid solid in `result`, else 0 (CAD-RL, arXiv:2508.10118).

    A solid that cannot be compared with the reference within the time is none.

    As a gate, `mixing.gates.cad_executes: {below: 0.5, reward: 0}`, it makes CAD-RL's product
    R_exec (lambda_geom R_geom + lambda_eval R_eval). A prompt without a reference program is NaN.
    """

    reads_reference: ClassVar[bool] = True
    seconds: float = Field(default=30.0, gt=0)
    """Of one process; a program past it does not execute."""

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        found = judge_answer(sample.text, sample.prompt.answer, seconds=self.seconds)
        return math.nan if found is None else float(found.executes)
