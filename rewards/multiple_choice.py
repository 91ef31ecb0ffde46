"""Are the chosen letters the right ones?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import answer_block
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

SEPARATORS = re.compile(r"[,;\s]+")
STRICT = re.compile(r"[A-Z]")
LENIENT = re.compile(r"\(?([A-Z])(?:[.):].*)?", re.DOTALL)


@rewards.register("multiple_choice")
class MultipleChoice(RewardConfig):
    """1 where the answer block names exactly the reference's set of letters, else 0.

    Letters are split at commas, semicolons and white space; an empty set and a letter named twice
    are wrong. `lenient` reads one option written as "A.", "(A)", "A) text" or "A: text". A
    reference without a letter scores NaN.
    """

    lenient: bool = False

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        reference = sample.prompt.answer or ""
        expected = letters(answer_block(reference) or reference, lenient=self.lenient)
        if not expected:
            return float("nan")
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
