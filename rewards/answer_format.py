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
}


@rewards.register("answer_format")
class AnswerFormat(RewardConfig):
    """1 where the whole text is a think block and an answer block, or the answer alone (Med-R1).

    `fixed`: each block exactly once and not empty, white space around allowed. `released`: the
    pattern of the authors' code, which lets blocks repeat and stay empty.
    """

    template: Literal["think", "no_think"] = "think"
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([float(self._fits(sample.text)) for sample in samples])

    def _fits(self, text: str) -> bool:
        if self.variant == "released":
            return RELEASED[self.template].fullmatch(text) is not None
        return well_formed(text, think=self.template == "think")
