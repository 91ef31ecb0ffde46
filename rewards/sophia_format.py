"""SophiaVL-R1's gate: does a text have the blocks that its answer is read from?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.data.answers import well_formed
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@rewards.register("sophia_format")
class SophiaFormat(RewardConfig):
    """1 where an answer passes the gate, else 0 (SophiaVL-R1, arXiv:2505.17018).

    `fixed`: one think block and one answer block, neither empty, with only white space around.
    `released`: the text begins with a think block, and an answer block stands somewhere behind it,
    whatever is between, after, or there twice; with it goes `sophia_outcome.answer: first`. As a
    gate: `mixing.gates.sophia_format: {below: 0.5}`.
    """

    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        fits = fits_released if self.variant == "released" else fits_fixed
        return torch.tensor([float(fits(sample.text)) for sample in samples])


def fits_fixed(text: str) -> bool:
    """Each block once and nothing else."""
    return well_formed(text, think=True)


def fits_released(text: str) -> bool:
    """The first tag at the very start, the others behind it in their order."""
    position = 0
    for tag in TAGS:
        position = text.find(tag, position) + len(tag)
        if position < len(tag):
            return False
    return text.startswith(TAGS[0])
