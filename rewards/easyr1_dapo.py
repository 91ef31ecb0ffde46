"""EasyR1's DAPO reward: right or wrong on the last "Answer:" line, less a soft length penalty."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.data.answers import reference_answer
from mmrl.data.boxed import last_box
from mmrl.data.numbers import NUMBER, UNIT
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

TAIL = 300
"""Characters of the end of a text in which the answer line is looked for."""
LINE = re.compile(r"answer\s*+:\s*+([^\n]+)", re.IGNORECASE)
WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|overline)\{([^{}]*)\}")
DROPPED = re.compile(r"\\left|\\right|\\[,;:! ]|\^\{?\\circ\}?|\\circ|\\?[$%]|~|°")
SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
SHORT_ROOT = re.compile(r"\\sqrt(\w)")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
WITH_UNIT = re.compile(rf"({NUMBER})\s*+(.+)", re.DOTALL)


@rewards.register("easyr1_dapo")
class EasyR1Dapo(RewardConfig):
    """accuracy + `penalty_factor` overlong, in [-1 - factor, 1] (EasyR1's `dapo`, b44b311b).

    accuracy: 1 where the last "Answer:" line of the final 300 characters is the reference, both
    tidied as Minerva does it (`tidy_answer`), else -1. overlong: 0 up to
    max_length - buffer_length tokens, from there linear to -1 at max_length, and -1 beyond (DAPO,
    arXiv:2503.14476, eq. 13). `max_length` is the run's `max_new_tokens`. A prompt without a
    reference scores NaN, and so does a text whose tokens were not counted.
    """

    reads_reference: ClassVar[bool] = True
    max_length: int = Field(gt=0)
    buffer_length: int = Field(gt=0)
    penalty_factor: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _buffer_fits(self) -> EasyR1Dapo:
        if self.buffer_length > self.max_length:
            raise ConfigError(
                f"{self.buffer_length} is above max_length {self.max_length}", key="buffer_length"
            )
        return self

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = tidy_answer(reference_answer(sample.prompt.answer))
        if not reference or (sample.text and sample.num_tokens == 0):
            return math.nan
        lines = LINE.findall(sample.text[-TAIL:])
        accuracy = 1.0 if lines and tidy_answer(lines[-1]) == reference else -1.0
        return accuracy + self.penalty_factor * self.overlong(sample.num_tokens)

    def overlong(self, length: int) -> float:
        """0 up to the buffer, -1 from max_length on, linear between; ValueError below 0."""
        if length < 0:
            raise ValueError(f"length must be >= 0 tokens, got {length}")
        beyond = length - (self.max_length - self.buffer_length)
        return -min(max(beyond / self.buffer_length, 0.0), 1.0)


def tidy_answer(text: str) -> str:
    """What stands behind the last "=", bare of wrappers, blanks, dollars, commas and a unit.

    LaTeX's short forms are written out (\\frac12, \\sqrt2, \\dfrac), and a full stop ends it.
    """
    text = (last_box(text) or text).rpartition("=")[2]
    text = WRAPPED.sub(r"\1", text.replace("\\dfrac", "\\frac"))
    text = DROPPED.sub("", text.replace("\\tfrac", "\\frac").replace("\u2212", "-"))
    text = SHORT_ROOT.sub(r"\\sqrt{\1}", SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    text = THOUSANDS.sub("", text).strip().rstrip(".")
    number = WITH_UNIT.fullmatch(text)
    if number and UNIT.fullmatch(number[2].strip()):
        text = number[1]
    return "".join(text.split())
