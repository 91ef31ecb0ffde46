"""Rewards on written answers, against what the released functions of two papers gave."""

import json
import math
from pathlib import Path

import pytest

import rewards  # noqa: F401
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample

GOLDEN = Path(__file__).parents[1] / "golden" / "vlm_rewards.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]}
MED_R1 = [name for name, case in CASES.items() if case["peer"] == "Med-R1"]
CHOICES = [name for name, case in CASES.items() if case["peer"] == "SophiaVL-R1"]

OUR_ACCURACY = {
    "mr013": 0.0,  # a bare letter is no answer block
    "mr055": 0.0,
    "mr021": 0.0,  # several answers are wrong
    "mr039": 0.0,  # no symbolic check: the content must be the reference
    "mr044": 0.0,
    "mr045": 0.0,
}
OUR_FORMAT = {
    "mr020": 0.0,  # two answer blocks
    "mr021": 0.0,
    "mr022": 0.0,
    "mr023": 0.0,  # two think blocks
    "mr024": 0.0,  # an empty block
    "mr025": 0.0,
    "mr050": 1.0,  # white space after the last block
    "mr056": 0.0,  # a think block inside the answer
}
OUR_CHOICE = {"sv067": 1.0}  # a semicolon separates letters


def score(name: str, text: str, reference: str | None, **fields) -> float:
    sample = TextSample(Prompt("?", answer=reference), text)
    return load_reward(name, **fields)([sample]).item()


@pytest.mark.parametrize("name", MED_R1)
def test_accuracy_of_the_golden_case(name):
    case = CASES[name]
    expected = case.get("sane_expectation", case["output"]["value"]["accuracy"])
    found = score("accuracy", case["inputs"]["completion"], case["inputs"]["solution"])
    assert found == OUR_ACCURACY.get(name, expected)


@pytest.mark.parametrize("variant", ["released", "fixed"])
@pytest.mark.parametrize("name", MED_R1)
def test_answer_format_of_the_golden_case(name, variant):
    case = CASES[name]
    template = "no_think" if "no-think" in case["function"] else "think"
    expected = case["output"]["value"]["format"]
    if variant == "fixed":
        expected = OUR_FORMAT.get(name, expected)
    text = case["inputs"]["completion"]
    assert score("answer_format", text, "C", template=template, variant=variant) == expected


@pytest.mark.parametrize("variant", ["released", "fixed"])
@pytest.mark.parametrize("name", CHOICES)
def test_multiple_choice_of_the_golden_case(name, variant):
    case = CASES[name]
    expected = case["output"]["value"]
    if variant == "fixed":
        expected = OUR_CHOICE.get(name, case.get("sane_expectation", expected))
    inputs = case["inputs"]
    found = score("multiple_choice", inputs["predict"], inputs["ground_truth"], variant=variant)
    assert found == expected


@pytest.mark.parametrize("reference", [None, "", " ", "<answer> </answer>"])
@pytest.mark.parametrize("name", ["accuracy", "multiple_choice", "string_match", "math_answer"])
def test_a_prompt_without_a_reference_cannot_be_scored(name, reference):
    for text in ("<answer>A</answer>", "<answer></answer>"):
        assert math.isnan(score(name, text, reference))


@pytest.mark.parametrize("name", ["accuracy", "multiple_choice", "string_match", "math_answer"])
def test_a_reference_in_an_answer_block_is_its_content(name):
    answer = "4" if name == "math_answer" else "A"
    fields = {"seconds": 30.0} if name == "math_answer" else {}
    reference = f"<answer> {answer} </answer>"
    assert score(name, f"<answer>{answer}</answer>", reference, **fields) == 1
    assert score(name, "<answer>5</answer>", reference, **fields) == 0


def test_text_around_the_blocks_changes_the_format_but_not_the_accuracy():
    text = "Well. <think>a</think><answer>C</answer> I am sure."
    assert score("accuracy", text, "C") == 1
    assert score("answer_format", text, "C") == 0


def test_no_text_fits_both_templates():
    for case in map(CASES.get, MED_R1):
        text = case["inputs"]["completion"]
        fits = [score("answer_format", text, "C", template=t) for t in ("think", "no_think")]
        assert sum(fits) <= 1


@pytest.mark.parametrize("text", ["A.", "(A)", "A) Paris", "A: Paris"])
def test_lenient_choice_reads_a_letter_with_its_text(text):
    assert score("multiple_choice", f"<answer>{text}</answer>", "A", lenient=True) == 1
    assert score("multiple_choice", f"<answer>{text}</answer>", "A") == 0


def test_a_word_is_no_choice_reference():
    assert math.isnan(score("multiple_choice", "<answer>A</answer>", "Pneumonia"))


@pytest.mark.parametrize(("text", "expected"), [("Edema|Effusion", 1.0), ("Edema", 0.0)])
def test_an_answer_of_several_labels_is_right_as_a_whole_and_never_counts_more_than_1(
    text, expected
):
    assert score("accuracy", f"<answer>{text}</answer>", "Edema|Effusion") == expected
