"""Is the answer right, each type of problem by its own measure?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import answer_block, first_answer, reference_answer
from mmrl.data.prompts import DataError
from mmrl.data.text_match import rouge_mean, same_number, word_error_rate
from mmrl.registry import nearest_hint
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample
from rewards.multiple_choice import letters, reference_letters


def choice(answer: str, reference: str) -> float:
    """1 where the answer names exactly the reference's letters."""
    expected = reference_letters(reference)
    if not expected:
        raise DataError(f"a multiple-choice reference needs a letter, got {reference!r}")
    return float(letters(answer, lenient=False) == expected)


def transcription(answer: str, reference: str) -> float:
    """exp(-WER); an empty transcription is worth nothing."""
    rate = word_error_rate(answer, reference)
    return math.exp(-rate) if answer.strip() else 0.0


MEASURES = {
    "numerical": lambda answer, reference: float(same_number(answer, reference)),
    "multiple choice": choice,
    "OCR": transcription,
    "free-form": rouge_mean,
}


@rewards.register("sophia_outcome")
class SophiaOutcome(RewardConfig):
    """SophiaVL-R1's outcome by the prompt's `problem_type`, in [0, 1] (arXiv:2505.17018).

    numerical: equal value; multiple choice: equal sets of letters; OCR: exp(-WER), where the
    paper's -WER would make every answer wrong; free-form: mean F1 of ROUGE-1, -2 and -L. A text
    without exactly one answer block scores 0; `answer: first` reads the first of several, even one
    in the think block, as the release does. An unknown type and a reference of no use are errors.
    """

    reads_reference: ClassVar[bool] = True
    answer: Literal["only", "first"] = "only"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        kind = str(sample.prompt.metadata.get("problem_type"))
        if kind not in MEASURES:
            raise DataError(f"problem_type '{kind}'{nearest_hint(kind, MEASURES)}")
        if sample.prompt.answer is None:
            raise DataError(f"the prompt {sample.prompt.text[:60]!r} has no answer")
        reference = reference_answer(sample.prompt.answer)
        answer = (answer_block if self.answer == "only" else first_answer)(sample.text)
        return 0.0 if answer is None else MEASURES[kind](answer, reference)
