"""How near is the answer to the reference, letter by letter?"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("string_match")
class StringMatch(RewardConfig):
    """Similarity of the answer block to the reference, after NFKC, case folding and one space.

    `exact`: 1 or 0. `levenshtein`: 1 - edits / length of the longer. `anls`: the same, 0 below 0.5
    (ANLS of document questions, arXiv:1907.00490). Several references are split at "|", and the
    best counts. Without an answer block 0; without a reference NaN.
    """

    reads_reference: ClassVar[bool] = True
    rule: Literal["exact", "levenshtein", "anls"] = "exact"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        parts = reference_answer(sample.prompt.answer).split("|")
        wanted = [normal for part in parts if (normal := tidy(part))]
        if not wanted:
            return math.nan
        answer = tidy(answer_block(sample.text) or "")
        if self.rule == "exact":
            return float(answer in wanted)
        best = (
            max(Levenshtein.normalized_similarity(answer, one) for one in wanted) if answer else 0.0
        )
        return 0.0 if self.rule == "anls" and best < 0.5 else best


def tidy(text: str) -> str:
    """NFKC, folded case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
