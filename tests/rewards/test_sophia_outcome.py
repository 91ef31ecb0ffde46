"""SophiaVL-R1's outcomes against the released rewards, which gate and grade in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrl.data.answers import well_formed
from mmrl.data.prompts import DataError
from mmrl.types import Prompt, TextSample
from rewards.sophia_format import SophiaFormat
from rewards.sophia_outcome import SophiaOutcome

CASES = json.loads((Path(__file__).parents[1] / "golden/sophia_outcome.json").read_text())["cases"]
DIFFERENT = {
    "sv027": 0.0,  # two empty strings are no right answer
    "sv032": 1.0,  # white space before the first tag
    "sv033": 0.0,  # text after the answer
    "sv034": 0.0,  # text between the blocks
    "sv038": 0.0,  # a second answer block, inside the think block
    "sv039": 0.0,  # nested think tags
}
"""Where the strict gate decides otherwise than the released one."""
WITHOUT_WORDS = ("sv082", "sv083")
NUMBERS = [c for c in CASES if c["type"] == "numerical" and c["id"] != "sv027"]
"""All but the one where two empty strings are a right answer."""


def sample(text: str, reference: str | None, kind: str) -> TextSample:
    return TextSample(Prompt("what?", answer=reference, metadata={"problem_type": kind}), text)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["id"] not in WITHOUT_WORDS], ids=lambda case: case["id"]
)
def test_outcome_behind_the_gate_equals_the_reference(case: dict) -> None:
    [score] = SophiaOutcome()([sample(case["text"], case["reference"], case["type"])]).tolist()
    gated = score if well_formed(case["text"], think=True) else 0.0
    sane = case["released"] if case["sane"] is None else case["sane"]
    assert gated == pytest.approx(DIFFERENT.get(case["id"], sane), abs=1e-6)


@pytest.mark.parametrize("case", NUMBERS, ids=lambda case: case["id"])
def test_the_released_gate_and_the_first_answer_equal_the_reference(case: dict) -> None:
    given = [sample(case["text"], case["reference"], case["type"])]
    [gate] = SophiaFormat(variant="released")(given).tolist()
    [score] = SophiaOutcome(answer="first")(given).tolist()
    assert gate * score == case["released"]


@pytest.mark.parametrize(
    ("text", "released", "fixed"),
    [
        ("<think>a</think><answer>1</answer>", 1, 1),
        (" <think>a</think>\n<answer>1</answer>\n", 0, 1),
        ("<think>a</think> so <answer>1</answer>.", 1, 0),
        ("<think></think><answer></answer>", 1, 0),
        ("<think>a</think><answer>1</answer><answer>2</answer>", 1, 0),
        ("<think><answer>1</answer></think>", 0, 0),
        ("<answer>1</answer><think>a</think>", 0, 0),
        ("<think>a</think><answer>1", 0, 0),
        ("", 0, 0),
    ],
)
def test_what_passes_each_gate(text: str, released: int, fixed: int) -> None:
    assert SophiaFormat(variant="released")([sample(text, "1", "numerical")]).item() == released
    assert SophiaFormat()([sample(text, "1", "numerical")]).item() == fixed


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] in WITHOUT_WORDS])
def test_an_empty_reference_is_an_error_and_no_score(case: dict) -> None:
    with pytest.raises(DataError, match="at least one word"):
        SophiaOutcome()([sample(case["text"], case["reference"], case["type"])])


@pytest.mark.parametrize(
    ("kind", "reference", "message"),
    [
        ("numeric", "1", r"problem_type 'numeric'; did you mean 'numerical'\?"),
        ("None", "1", r"problem_type 'None' \(known: OCR, free-form"),
        ("numerical", None, "has no answer"),
        ("multiple choice", "the first", "needs a letter, got 'the first'"),
    ],
)
def test_a_prompt_of_no_use_is_one_clear_error(kind: str, reference, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SophiaOutcome()([sample("<answer>1</answer>", reference, kind)])
