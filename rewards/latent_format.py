"""Does the text think, imagine, think again and answer?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.ops.latent_steps import END, START
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

WORDS = rf"(?:(?!</?think>|</?answer>|{re.escape(START)}|{re.escape(END)}).)+"
SPAN = rf"{re.escape(START)}{WORDS}{re.escape(END)}"
FORM = re.compile(
    rf"\s*<think>{WORDS}</think>(?:\s*{SPAN}\s*<think>{WORDS}</think>)+\s*"
    rf"<answer>{WORDS}</answer>\s*",
    re.DOTALL,
)


@rewards.register("latent_format")
class LatentFormat(RewardConfig):
    """1 where the text is think (span think)+ answer, none of them empty, else 0 (HyLaR)."""

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([float(FORM.fullmatch(sample.text) is not None) for sample in samples])
