"""Medical multiple choice: what is refused, and pictures on both sides of a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmrl.data.medical import (
    MODALITIES,
    QUESTION_TYPES,
    check_medical,
    without_pictures_of,
)
from mmrl.data.prompts import DataError
from mmrl.types import Prompt

GOOD = Prompt(
    "What does the scan show? A) edema, B) a mass, C) nothing",
    (Path("a.png"),),
    answer="<answer> C </answer>",
    metadata={"modality": "CT", "question_type": "Disease Diagnosis"},
)


def test_eight_modalities_and_five_question_types_are_known() -> None:
    assert (len(MODALITIES), len(QUESTION_TYPES)) == (8, 5)
    for name in MODALITIES:
        check_medical([replace(GOOD, metadata={"modality": name})])
    for name in QUESTION_TYPES:
        check_medical([replace(GOOD, metadata={"question_type": name})])


def test_a_letter_alone_or_in_its_block_and_no_metadata_will_do() -> None:
    check_medical([GOOD, replace(GOOD, answer="B"), replace(GOOD, metadata={})])
    check_medical([replace(GOOD, text="Which? (A) x (B) y", answer="A")])
    check_medical([replace(GOOD, text="Which?\nA. x\nB. y", answer="B")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"modality": "Xray"}}, r"modality 'Xray'; did you mean 'X-ray'\?"),
        ({"metadata": {"question_type": "Diagnosis"}}, "question_type 'Diagnosis'.*known"),
        ({"images": ()}, "the question 'What does the scan show.* has no picture"),
        ({"text": "What is it?"}, "has no options; expected"),
        ({"answer": None}, r"has the answer '', which is none of its options \(A, B, C\)"),
        ({"answer": "<answer>D</answer>"}, "has the answer 'D'"),
        ({"answer": "edema"}, "has the answer 'edema'"),
    ],
)
def test_a_prompt_of_no_use_is_named_with_what_is_wrong(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_medical([GOOD, replace(GOOD, **changes)])


def test_a_picture_counts_by_its_bytes_and_a_split_by_picture_shares_none(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("copy", b"1")):
        (tmp_path / name).write_bytes(content)
    prompts = [Prompt("?", (tmp_path / name,)) for name in ("a", "b")]
    others = [Prompt("other?", (tmp_path / "copy",))]
    assert without_pictures_of(prompts, others) == prompts[1:]
    assert without_pictures_of(prompts, [Prompt("text alone")]) == prompts
    with pytest.raises(DataError, match="shows the pictures of all 2 prompts"):
        without_pictures_of(prompts, prompts)
