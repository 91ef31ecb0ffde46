"""Does the answer have the reference's value?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer
from mmrl.data.boxed import last_box
from mmrl.data.math_equal import same_value
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("math_answer")
class MathAnswer(RewardConfig):
    r"""1 where the last `\boxed{}`, else the answer block, equals the reference by math-verify.

    101_2 and 101 are two numbers. A text with neither is wrong; a comparison past `seconds` scores
    NaN, and so does a prompt without a reference. Needs the extra `math`.
    """

    reads_reference: ClassVar[bool] = True
    seconds: float = Field(default=5.0, gt=0)

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        reference = reference_answer(sample.prompt.answer)
        if not reference:
            return math.nan
        answer = last_box(sample.text) or answer_block(sample.text)
        if not answer:
            return 0.0
        found = same_value(last_box(reference) or reference, answer, seconds=self.seconds)
        return math.nan if found is None else float(found)
