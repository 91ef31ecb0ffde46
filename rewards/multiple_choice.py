"""Are the chosen letters the right ones?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import ANSWER, answer_block
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

SEPARATORS = re.compile(r"[,;\s]+")
STRICT = re.compile(r"[A-Z]")
LENIENT = re.compile(r"\(?([A-Z])(?:[.):].*)?", re.DOTALL)
JOINED = re.compile(r"[A-Z]{2,}")


@rewards.register("multiple_choice")
class MultipleChoice(RewardConfig):
    """1 where the answer block names exactly the reference's set of letters, else 0.

    Letters are split at commas, semicolons and white space; an empty set and a letter named twice
    are wrong. `lenient` reads one option written as "A.", "(A)", "A) text" or "A: text". The
    reference may also join its letters ("AB"); one without a letter scores NaN.
    `released` is SophiaVL-R1's code (arXiv:2505.17018): as many parts between commas as the
    reference has characters, each a substring of it, so an empty answer fits any single letter.
    """

    reads_reference: ClassVar[bool] = True
    lenient: bool = False
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        reference = sample.prompt.answer or ""
        reference = answer_block(reference) or reference
        expected = reference_letters(reference)
        if not expected:
            return float("nan")
        if self.variant == "released":
            return float(fits_released(sample.text, reference))
        found = letters(answer_block(sample.text) or "", lenient=self.lenient)
        return float(found is not None and found == expected)


def letters(text: str, *, lenient: bool) -> frozenset[str] | None:
    """The set of option letters; None where a part is no letter or a letter stands twice."""
    if lenient and (single := LENIENT.fullmatch(text.strip())):
        return frozenset(single[1])
    parts = [part for part in SEPARATORS.split(text.strip()) if part]
    if len(set(parts)) != len(parts) or not all(STRICT.fullmatch(part) for part in parts):
        return None
    return frozenset(parts)


def reference_letters(text: str) -> frozenset[str] | None:
    """As `letters`, and "AB" is A and B; joined letters must stand in order, so no word passes."""
    joined = text.strip()
    if JOINED.fullmatch(joined) and sorted(set(joined)) == list(joined):
        return frozenset(joined)
    return letters(text, lenient=True)


def fits_released(text: str, reference: str) -> bool:
    """The rule of the authors' code on the first answer block."""
    found = ANSWER.search(text)
    parts = [part.strip() for part in found[1].split(",")] if found else []
    return len(parts) == len(reference) and all(part in reference for part in parts)
