"""Medical multiple choice: known modalities and question types, a split by picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mmrl.data.answers import reference_answer
from mmrl.data.options import options
from mmrl.data.prompts import DataError
from mmrl.registry import nearest_hint
from mmrl.types import Prompt

MODALITIES = (
    "CT",
    "MRI",
    "X-ray",
    "Ultrasound",
    "Dermoscopy",
    "Fundus Photography",
    "OCT",
    "Microscopy",
)
"""Of OmniMedVQA's open part, as Med-R1 splits it (arXiv:2503.13939)."""
QUESTION_TYPES = (
    "Anatomy Identification",
    "Disease Diagnosis",
    "Lesion Grading",
    "Modality Recognition",
    "Other Biological Attributes",
)
NAMES = {"modality": MODALITIES, "question_type": QUESTION_TYPES}


def check_medical(prompts: Sequence[Prompt]) -> None:
    """DataError names the first prompt that is no medical multiple-choice question.

    Each needs a picture, options "A) ..., B) ..." in its text and one of their letters as its
    answer, alone or in an answer block; modality and question_type, where given, a known name.
    """
    for prompt in prompts:
        where = f"the question {prompt.text[:60]!r}"
        for key, known in NAMES.items():
            value = prompt.metadata.get(key)
            if value is not None and value not in known:
                raise DataError(f"{where} has {key} '{value}'{nearest_hint(str(value), known)}")
        if not prompt.images:
            raise DataError(f"{where} has no picture")
        letters = options(prompt.text)
        if not letters:
            raise DataError(f'{where} has no options; expected "A) ..., B) ..." in its text')
        answer = reference_answer(prompt.answer)
        if answer not in letters:
            raise DataError(
                f"{where} has the answer {answer!r}, which is none of its options "
                f"({', '.join(letters)})"
            )


def without_pictures_of(prompts: Sequence[Prompt], others: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that show no picture, byte for byte, of the others: a split by picture.

    OmniMedVQA is split by question: 1,836 of 17,352 test items by modality show a training picture.
    """
    known = {_digest(image) for prompt in others for image in prompt.images}
    kept = [p for p in prompts if not any(_digest(image) in known for image in p.images)]
    if not kept:
        raise DataError(f"the held-out side shows the pictures of all {len(prompts)} prompts")
    return kept


def _digest(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()
