"""Prompt4Trust's calibration reward: a log score of the confidence a reply states."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

UNREADABLE = math.log(1e-12)
LEAST = 1e-10
REPLY = re.compile(
    r"answer\s+is\s*:?\s*\(?([A-Z])\)?(?![A-Za-z]).{0,40}?confidence\s*(?:of|is)?\s*:?\s*"
    r"(\d+(?:\.\d+)?)\s*(%?)",
    re.IGNORECASE | re.DOTALL,
)
ANSWERS = re.compile(r"answer\s+is\s*:?\s*\(?([A-Z])\)?(?![A-Za-z])", re.IGNORECASE)
RELEASED_LETTER = re.compile(r"answer is\s+([A-D])", re.IGNORECASE)
RELEASED_CONFIDENCE = re.compile(r"confidence\s+(\d{1,3})", re.IGNORECASE)


@rewards.register("stated_confidence")
class StatedConfidence(RewardConfig):
    """ln p where the answer is right, ln(1 - p) - 1 where it is wrong (arXiv:2507.09279).

    p is the confidence of "The answer is B with confidence 90.", a percentage, or a share where it
    is written with a point; p and 1 - p are kept >= 1e-10. A reply that cannot be read scores
    ln 1e-12, the lowest of all; a prompt without a reference NaN. The log score is proper: its
    mean is highest where p is the true chance of being right.

    `released` reads the letter without a word's end ("based" is B), no brackets or colon, and a
    fraction as its integer part.
    """

    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = (sample.prompt.answer or "").strip().upper()
        if not reference:
            return math.nan
        read = released_reply if self.variant == "released" else stated_reply
        found = read(sample.text)
        if found is None:
            return UNREADABLE
        letter, confidence = found
        if letter == reference:
            return math.log(min(max(confidence, LEAST), 1.0))
        return math.log(min(max(1 - confidence, LEAST), 1.0)) - 1


def stated_reply(text: str) -> tuple[str, float] | None:
    """Letter and confidence in [0, 1]; None where either cannot be read or letters disagree."""
    found = REPLY.search(text)
    if found is None or len({letter.upper() for letter in ANSWERS.findall(text)}) != 1:
        return None
    number, percent = float(found[2]), bool(found[3])
    share = number if "." in found[2] and number <= 1 and not percent else number / 100
    return (found[1].upper(), share) if share <= 1 else None


def released_reply(text: str) -> tuple[str, float] | None:
    """Letter and confidence as the authors' code reads them."""
    letter, confidence = RELEASED_LETTER.search(text), RELEASED_CONFIDENCE.search(text)
    if letter is None or confidence is None:
        return None
    return letter[1].upper(), min(int(confidence[1]) / 100, 1.0)
