"""How much does a text repeat itself?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.ops.latent_steps import END, START
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

SPAN = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
TAG = re.compile(r"</?(?:think|answer)>")
GRAM = 4
BLOCKS = (50, 25)


@rewards.register("repetition")
class Repetition(RewardConfig):
    """The largest of three shares in [0, 1]: repeated 4-grams, blocks and lines (HyLaR).

    Words stand between white space, tags left out, a span of latents being one word. Blocks are
    the text's words cut into fifties, and into twenty-fives. A text too short for any of them
    scores 0. It is a watched number: give it weight 0, or a negative one.
    """

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([repetition(sample.text) for sample in samples])


def repetition(text: str) -> float:
    """The score of one text."""
    words = TAG.sub(" ", SPAN.sub(" span ", text)).split()
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shares = [duplicates(grams), duplicates(lines)]
    for size in BLOCKS:
        cut = [tuple(words[i : i + size]) for i in range(0, len(words) - size + 1, size)]
        repeated = sum(count for count in Counter(cut).values() if count > 1)
        shares.append(size * repeated / max(len(words), 1))
    return max(shares)


def duplicates(items: Sequence[Hashable]) -> float:
    """Share of the items that stood before; 0 of none."""
    return 1 - len(set(items)) / len(items) if items else 0.0
