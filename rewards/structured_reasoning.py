"""ReFIne's reward: a right answer, its sections, their use, and an honest confidence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import reference_answer
from mmrl.data.boxed import last_box
from mmrl.data.math_equal import same_value, shared_worker
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

SECTIONS = ("understanding", "facts", "plan", "think", "final_answer", "self_assessment")
REFERRED = ("<understanding>", "<facts>", "<plan>")
CONFIDENCE = re.compile(r"Confidence: (10|\d)/10")
RELEASED_CONFIDENCE = re.compile(r"Confidence:\s*(\d{1,2})/10")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WRITTEN = re.compile(
    r"-?(?:\\[dt]?frac\{[^{}]+\}\{[^{}]+\}|\d{1,3}(?:,\d{3})++(?:\.\d++)?+"
    r"|\d++(?:\.\d++|/\d++|_\{[^{}]*\}|_\d++)?+)"
)
"""A number in prose: a fraction, thousands, a decimal, one in another base."""
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
"""Two letters of no LaTeX command: prose, whose last number is the answer."""
MISSING = 1 - 0.25 - 1
"""Of the confidence part where none is stated: that of p = 0.5, less 1."""


@rewards.register("structured_reasoning")
class StructuredReasoning(RewardConfig):
    r"""(correct + structure + reference + confidence) / 4, in [-1/16, 1] (ReFIne, 2510.09062).

    correct: the last `\boxed{}`, else the expression or the last number, of the final answer has
    the reference's value and base. structure: the six sections stand in their order. reference:
    share of the first three that the think section mentions by tag. confidence:
    1 - (s / 10 - correct)^2 of the line "Confidence: s/10" in the self-assessment, -0.25 without
    one. A comparison past `seconds`, and a prompt without a reference, score NaN. Needs the extra
    `math`.

    `released` reads the last box or number and the first confidence of the whole text, 15/10 as 1
    and 101_2 as 101, and lets a section stand twice.
    """

    reads_reference: ClassVar[bool] = True
    seconds: float = Field(default=5.0, gt=0)
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = reference_answer(sample.prompt.answer)
        correct = self._correct(sample.text, reference) if reference else None
        if correct is None:
            return math.nan
        once = self.variant == "fixed"
        read = stated_tenths if once else released_tenths
        parts = (
            float(correct),
            float(in_order(sample.text, once=once)),
            referred(sample.text),
            honesty(read(sample.text), correct),
        )
        return sum(parts) / 4

    def _correct(self, text: str, reference: str) -> bool | None:
        released = self.variant == "released"
        answer = (last_box(text) or last_of(NUMBER, text)) if released else final_answer(text)
        if not answer:
            return False
        equal = shared_worker().equal if released else same_value
        return equal(reference, answer, seconds=self.seconds)


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
    inside, closing, _ = text.partition("<think>")[2].partition("</think>")
    inside = inside.lower() if closing else ""
    return sum(tag in inside for tag in REFERRED) / len(REFERRED)


def final_answer(text: str) -> str:
    """The box of the final answer, its whole expression, or in prose its last number.

    The section is the last of its name before the self-assessment, closed or cut off; without it
    all of the text before the self-assessment is read, less a stated confidence.
    """
    before, opening, rest = text.rpartition(f"<{SECTIONS[-1]}>")
    section = (
        (before if opening else rest)
        .rpartition("<final_answer>")[2]
        .partition("</final_answer>")[0]
    )
    if box := last_box(section):
        return box
    expression = RELEASED_CONFIDENCE.sub("", section).replace("$", "").strip().rstrip(".")
    return (WORD.search(expression) and last_of(WRITTEN, expression)) or expression


def last_of(pattern: re.Pattern[str], text: str) -> str | None:
    """The last match of a pattern."""
    found = [match[0] for match in pattern.finditer(text)]
    return found[-1] if found else None


def stated_tenths(text: str) -> int | None:
    """s of the one line "Confidence: s/10" in the last self-assessment; None for several."""
    _, opening, rest = text.rpartition(f"<{SECTIONS[-1]}>")
    lines = rest.partition(f"</{SECTIONS[-1]}>")[0].splitlines() if opening else []
    found = [match for line in lines if (match := CONFIDENCE.fullmatch(line.strip()))]
    return int(found[0][1]) if len(found) == 1 else None


def released_tenths(text: str) -> int | None:
    """The first confidence anywhere."""
    found = RELEASED_CONFIDENCE.search(text)
    return int(found[1]) if found else None


def honesty(tenths: int | None, correct: bool) -> float:
    """1 - (p - correct)^2, p = tenths / 10 and 1 at most, or -0.25 where none was stated."""
    return MISSING if tenths is None else 1 - (min(tenths / 10, 1.0) - float(correct)) ** 2
