"""Does the text have the blocks it was asked for?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import well_formed
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

RELEASED = {
    "think": re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL),
    "no_think": re.compile(r"\s*<answer>.*?</answer>", re.DOTALL),
    "think_after": re.compile(r"<answer>.*?</answer>\s*<think>.*?</think>", re.DOTALL),
}


@rewards.register("answer_format")
class AnswerFormat(RewardConfig):
    """1 where the whole text is a think block and an answer block, or the answer alone (Med-R1).

    `think_after` wants the answer first and its explanation behind it. `fixed`: each block exactly
    once and not empty, white space around allowed. `released`: the pattern of the authors' code,
    which lets blocks repeat and stay empty; that of `think_after`, which was not released, mirrors
    it.
    """

    template: Literal["think", "no_think", "think_after"] = "think"
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([float(self._fits(sample.text)) for sample in samples])

    def _fits(self, text: str) -> bool:
        if self.variant == "released":
            return RELEASED[self.template].fullmatch(text) is not None
        after = self.template == "think_after"
        return well_formed(text, think=self.template != "no_think", answer_first=after)
