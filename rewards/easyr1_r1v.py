"""The r1v reward of EasyR1 and SophiaVL-R1: half for the answer, half for its blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer, well_formed
from mmrl.data.math_equal import graded
from mmrl.data.text_match import same_number
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample
from rewards.answer_format import RELEASED as RELEASED_FORMAT

ONE_LINE = re.compile(r"<answer>(.*?)</answer>")


@rewards.register("easyr1_r1v")
class EasyR1R1v(RewardConfig):
    """(1 - w) accuracy + w format, w = `format_weight` (EasyR1's and SophiaVL-R1's `r1v`).

    accuracy: the answer block is the reference by `mmrl.data.math_equal.graded`, or the whole text
    is nothing but the reference. format: the whole text is a think and an answer block. A prompt
    without a reference and a comparison past `seconds` score NaN. Needs the extra `math`.

    `released` reads the first answer block that has no line break in it, and lets blocks repeat and
    stay empty; `fixed` reads over lines, and several blocks are wrong.
    """

    reads_reference: ClassVar[bool] = True
    format_weight: float = Field(default=0.5, ge=0, le=1)
    seconds: float = Field(default=5.0, gt=0)
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference, text = reference_answer(sample.prompt.answer), sample.text
        if not reference:
            return math.nan
        correct = self._correct(text, reference)
        if correct is None:
            return math.nan
        if self.variant == "released":
            shaped = RELEASED_FORMAT["think"].fullmatch(text) is not None
        else:
            shaped = well_formed(text, think=True)
        return (1 - self.format_weight) * correct + self.format_weight * shaped

    def _correct(self, text: str, reference: str) -> bool | None:
        if self.variant == "released":
            found = ONE_LINE.search(text)
            block = found[1] if found else None
        else:
            block = answer_block(text)
        if block is None:
            return same_number(text, reference)
        return bool(block.strip()) and graded(block, reference, seconds=self.seconds)
