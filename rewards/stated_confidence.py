"""Prompt4Trust's calibration reward: a log score of the confidence a reply states."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import reference_answer
from mmrl.data.options import options
from mmrl.data.prompts import DataError
from mmrl.reward import RewardConfig, rewards
from mmrl.types import Prompt, TextSample

UNREADABLE = math.log(1e-12)
LEAST = 1e-10
UNLISTED = "ABCD"
"""Options of a prompt that lists none, as those of PMC-VQA."""
SHARE = r"\d++(?:\.\d++)?+|\.\d++"
"""Without a full stop behind it, which ends the sentence."""
LETTER = r"(?i:answer\s++is)\s*+:?+\s*+\(?+([A-Z])\)?+(?![\w'\u2019-])"
ANSWERS = re.compile(LETTER)
REPLY = re.compile(
    rf"{LETTER}.{{0,40}}?(?i:confidence)\s*+(?i:of|is)?+\s*+:?+\s*+({SHARE})\s*+(%?)",
    re.DOTALL,
)
RELEASED_LETTER = re.compile(r"answer is\s+([A-D])", re.IGNORECASE)
RELEASED_CONFIDENCE = re.compile(r"confidence\s+(\d{1,3})", re.IGNORECASE)


@rewards.register("stated_confidence")
class StatedConfidence(RewardConfig):
    """ln p where the answer is right, ln(1 - p) - 1 where it is wrong (arXiv:2507.09279).

    p is the confidence of "The answer is B with confidence 90.", a percentage (1 is one per cent),
    or a share where it is written with a point (1.0 is certain); p and 1 - p are kept >= 1e-10. The
    letter is a capital among the options that the prompt lists, A to D where it lists none. A reply
    that cannot be read scores ln 1e-12, the lowest of all; a prompt without a reference NaN, one
    whose reference is no option is an error. The log score is proper: its mean is highest where p
    is the true chance of being right.

    `released` reads the letter in any case and without a word's end ("based" is B), no brackets or
    colon, and a fraction as its integer part.
    """

    reads_reference: ClassVar[bool] = True
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = reference_answer(sample.prompt.answer).upper()
        if not reference:
            return math.nan
        if self.variant == "released":
            found = released_reply(sample.text)
        else:
            found = stated_reply(sample.text, allowed(sample.prompt, reference))
        if found is None:
            return UNREADABLE
        letter, confidence = found
        if letter == reference:
            return math.log(min(max(confidence, LEAST), 1.0))
        return math.log(min(max(1 - confidence, LEAST), 1.0)) - 1


def allowed(prompt: Prompt, reference: str) -> str:
    """The letters a reply may name; DataError where the reference is none of them."""
    letters = "".join(options(prompt.text)) or UNLISTED
    if len(reference) != 1 or reference not in letters:
        raise DataError(
            f"the answer {reference!r} of {prompt.text[:60]!r} is none of its options "
            f"({', '.join(letters)}); list them as 'A) ..., B) ...'"
        )
    return letters


def stated_reply(text: str, letters: str) -> tuple[str, float] | None:
    """One of `letters` and a confidence in [0, 1]; None where they cannot be read or disagree."""
    found = REPLY.search(text)
    if found is None or found[1] not in letters or len(set(ANSWERS.findall(text))) != 1:
        return None
    number, percent = float(found[2]), bool(found[3])
    share = number if "." in found[2] and number <= 1 and not percent else number / 100
    return (found[1], share) if share <= 1 else None


def released_reply(text: str) -> tuple[str, float] | None:
    """Letter and confidence as the authors' code reads them."""
    letter, confidence = RELEASED_LETTER.search(text), RELEASED_CONFIDENCE.search(text)
    if letter is None or confidence is None:
        return None
    return letter[1].upper(), min(int(confidence[1]) / 100, 1.0)
