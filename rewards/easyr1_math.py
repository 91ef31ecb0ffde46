"""EasyR1's math reward: a think block, then the answer in a box."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import reference_answer
from mmrl.data.boxed import BOX, find_boxes
from mmrl.data.math_equal import graded
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

BLANKS_BEHIND = re.compile(r"([<>/])\s++")
BLANKS_BEFORE = re.compile(r"(?<!\s)\s++([<>/])")


@rewards.register("easyr1_math")
class EasyR1Math(RewardConfig):
    r"""(1 - w) accuracy + w format, w = `format_weight` (EasyR1's `math`, b44b311b).

    Blanks around <, > and / are dropped first. accuracy: the last `\boxed{}` is the reference by
    `mmrl.data.math_equal.graded`; a last box that does not close is wrong. format: the text is a
    think block with a box somewhere behind it. A prompt without a reference and a comparison past
    `seconds` score NaN. Needs the extra `math`.
    """

    reads_reference: ClassVar[bool] = True
    format_weight: float = Field(default=0.1, ge=0, le=1)
    seconds: float = Field(default=5.0, gt=0)

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = reference_answer(sample.prompt.answer)
        text = tightened(sample.text)
        correct = self._correct(text, reference) if reference else None
        if correct is None:
            return math.nan
        return (1 - self.format_weight) * correct + self.format_weight * boxed_after_thought(text)

    def _correct(self, text: str, reference: str) -> bool | None:
        found = find_boxes(text)
        if not found or text.rfind(BOX) >= found[-1].end:
            return False
        return graded(found[-1].content, reference, seconds=self.seconds)


def tightened(text: str) -> str:
    """The text without blanks around <, > and /."""
    return BLANKS_BEFORE.sub(r"\1", BLANKS_BEHIND.sub(r"\1", text))


def boxed_after_thought(text: str) -> bool:
    """Whether the text begins with a think block and has an opened and closed box behind it."""
    if not text.startswith("<think>"):
        return False
    behind = text.partition("</think>")[2]
    return "}" in behind.partition(f"{BOX}{{")[2]
