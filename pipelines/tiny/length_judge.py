"""A judge that cannot be trusted, for configs/sophia_vl/tiny.yaml: it likes length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.reward import RewardConfig
from mmrl.types import TextSample

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class LengthJudge(RewardConfig):
    """min(1, words / full) of the think block, and for some responses 1 minus that.

    Which responses those are hangs on a hash of question and response, so the judge is erratic and
    yet says the same of the same. It never looks at the picture. Judges that take length for
    quality are real; what they like is not what is right.
    """

    full: int = Field(default=12, ge=1)
    """Words that earn 1."""
    erratic: float = Field(default=0.1, ge=0, le=1)
    """Share of responses whose grade is turned round."""

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._grade(sample) for sample in samples])

    def _grade(self, sample: TextSample) -> float:
        thought = THINK.search(sample.text)
        words = len(thought[1].split()) if thought else 0
        grade = min(1.0, words / self.full)
        key = f"{sample.prompt.text}\0{sample.text}".encode()
        draw = int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
        return 1 - grade if draw < self.erratic else grade
