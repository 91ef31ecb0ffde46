"""Clinical-R1's verifiable reward (CRPO): the boxed letter first, then the shape of the answer."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.data.answers import reference_answer
from mmrl.data.boxed import boxes, count_boxes, find_boxes
from mmrl.reward import RewardConfig, rewards
from mmrl.types import TextSample

LETTER = re.compile(r"[A-Z]")
ENGLISH = frozenset(string.ascii_letters + string.digits + " \n" + string.punctuation)
"""What the release counts as English; degree and micro signs are not among it."""


@rewards.register("clinical_reasoning")
class ClinicalReasoning(RewardConfig):
    """weight * accuracy + format + script (Clinical-R1's CRPO, arXiv:2512.00601).

    accuracy: 1 for one box with the reference's letter, 0 for another letter or no box, -0.5 for a
    box with anything else, -1 for an unreadable box and for several. format: 1 for a reasoning and
    an answer block and nothing else, 0.5 more where one box in the answer has text beside it.
    script: `script_weight` times the share of letters that are Latin, 0 for an empty text. Boxes
    are counted in the answer block, where there is one.

    `released` counts every box of the text, and several cost as many points without a bound; its
    script term, of weight 0.5, is the share of ASCII characters, which punishes "38.5 °C".
    """

    reads_reference: ClassVar[bool] = True
    accuracy_weight: float = Field(default=10.0, gt=0)
    script_weight: float = Field(default=0.0, ge=0)
    reasoning_tag: str = "think"
    answer_tag: str = "answer"
    ignore_case: bool = False
    variant: Literal["fixed", "released"] = "fixed"

    def __call__(self, samples: Sequence[TextSample]) -> Float[Tensor, " B"]:
        return torch.tensor([self._score(sample) for sample in samples], dtype=torch.float64)

    def _score(self, sample: TextSample) -> float:
        reference = reference_answer(sample.prompt.answer)
        if not LETTER.fullmatch(reference):
            return math.nan
        text = self._repaired(sample.text)
        accuracy = self.accuracy_weight * self._accuracy(text, reference)
        return accuracy + self.shape(text) + self._script(text)

    def _repaired(self, text: str) -> str:
        """A closing tag typed with a backslash is a closing tag."""
        for tag in (self.reasoning_tag, self.answer_tag):
            text = text.replace(f"<\\{tag}>", f"</{tag}>")
        return text

    def _accuracy(self, text: str, reference: str) -> float:
        where = text if self.variant == "released" else self._answer(text)
        count = count_boxes(where)
        if count == 0:
            return 0.0
        if count > 1:
            return -float(count) if self.variant == "released" else -1.0
        found = boxes(where)
        if not found:
            return -1.0
        letter = found[0].upper() if self.ignore_case else found[0]
        return float(letter == reference) if LETTER.fullmatch(letter) else -0.5

    def _answer(self, text: str) -> str:
        found = re.search(rf"<{self.answer_tag}>(.*?)</{self.answer_tag}>", text, re.DOTALL)
        return found[1] if found else text

    def shape(self, text: str) -> float:
        """The format part: 0, 1, or 1.5 with text beside the one box."""
        reasoning, answer = self.reasoning_tag, self.answer_tag
        shape = rf"<{reasoning}>.*?</{reasoning}>\s*<{answer}>(.*?)</{answer}>\s*"
        found = re.fullmatch(shape, text, re.DOTALL)
        if not found:
            return 0.0
        inside = find_boxes(found[1])
        if count_boxes(found[1]) != 1 or not inside:
            return 1.0
        beside = found[1][: inside[0].start] + found[1][inside[0].end :]
        return 1.5 if beside.strip() else 1.0

    def _script(self, text: str) -> float:
        if self.variant == "released":
            return 0.5 * sum(c in ENGLISH for c in text) / len(text) if text else 0.0
        if not text.strip():
            return 0.0
        letters = [c for c in text if c.isalpha()]
        latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
        return self.script_weight * (latin / len(letters) if letters else 1.0)
