"""ReFIne's reward: a right answer, its sections, their use, and an honest confidence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.boxed import last_box
from mmrl.data.math_equal import shared_worker
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

SECTIONS = ("understanding", "facts", "plan", "think", "final_answer", "self_assessment")
REFERRED = ("<understanding>", "<facts>", "<plan>")
CONFIDENCE = re.compile(r"\bConfidence: (10|\d)/10(?!\d)")
RELEASED_CONFIDENCE = re.compile(r"Confidence:\s*(\d{1,2})/10")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MISSING = 1 - 0.25 - 1
"""Of the confidence part where none is stated: that of p = 0.5, less 1."""


@rewards.register("structured_reasoning")
class StructuredReasoning(RewardConfig):
    r"""(correct + structure + reference + confidence) / 4, in [-1/16, 1] (ReFIne, 2510.09062).

    correct: the last `\boxed{}`, else the last number, has the reference's value. structure: the
    six sections stand in their order. reference: share of the first three that the think section
    mentions by tag. confidence: 1 - (s / 10 - correct)^2 of "Confidence: s/10", -0.25 without one.
    A comparison past `seconds`, and a prompt without a reference, score NaN. Needs
    the extra `math`.

    `released` reads 15/10 as 1 and lets a section stand twice.
    """

    seconds: float = Field(default=5.0, gt=0)
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = (sample.prompt.answer or "").strip()
        correct = self._correct(sample.text, reference) if reference else None
        if correct is None:
            return math.nan
        once = self.variant == "fixed"
        parts = (
            float(correct),
            float(in_order(sample.text, once=once)),
            referred(sample.text),
            honesty(sample.text, correct, strict=once),
        )
        return sum(parts) / 4

    def _correct(self, text: str, reference: str) -> bool | None:
        answer = last_box(text) or next(reversed(NUMBER.findall(text)), None)
        if answer is None:
            return False
        return shared_worker().equal(reference, answer, seconds=self.seconds)


def in_order(text: str, *, once: bool) -> bool:
    """Whether the twelve tags stand one after the other, and with `once` no section twice.

    The think section may mention opening tags, so closing ones are counted.
    """
    position = 0
    for tag in (part for name in SECTIONS for part in (f"<{name}>", f"</{name}>")):
        position = text.find(tag, position) + len(tag)
        if position < len(tag):
            return False
    return not once or all(text.count(f"</{name}>") == 1 for name in SECTIONS)


def referred(text: str) -> float:
    """Share of <understanding>, <facts>, <plan> that the first think section mentions."""
    found = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
    inside = found[1].lower() if found else ""
    return sum(tag in inside for tag in REFERRED) / len(REFERRED)


def honesty(text: str, correct: bool, *, strict: bool) -> float:
    """1 - (p - correct)^2, or -0.25 where no confidence can be read."""
    found = (CONFIDENCE if strict else RELEASED_CONFIDENCE).search(text)
    if found is None:
        return MISSING
    return 1 - (min(int(found[1]) / 10, 1.0) - float(correct)) ** 2
