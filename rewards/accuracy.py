"""Is the answer the reference answer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import answer_block, reference_answer
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample


@rewards.register("accuracy")
class Accuracy(RewardConfig):
    """1 where the only answer block holds the reference, else 0 (Med-R1, arXiv:2503.13939).

    White space around the content does not count; a text without an answer block, or with several,
    is wrong. The release also accepts a number that stands anywhere in the rationale; this does
    not. A prompt without a reference, or with an empty one, scores NaN.
    """

    reads_reference: ClassVar[bool] = True
    ignore_case: bool = False

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples])

    def _score(self, sample: TextSample) -> float:
        found, expected = answer_block(sample.text), reference_answer(sample.prompt.answer)
        if not expected:
            return float("nan")
        if found is not None and self.ignore_case:
            found, expected = found.casefold(), expected.casefold()
        return float(found == expected)
