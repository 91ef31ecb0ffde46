"""Rewards of clinical and calibrated reasoning: the released numbers, and where ours differ."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mmrl.data.boxed import boxes, last_box
from mmrl.data.math_equal import MathWorker
from mmrl.data.prompts import DataError
from mmrl.evaluate.calibration import brier, expected_calibration_error
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample
from rewards.clinical_reasoning import ClinicalReasoning
from rewards.structured_reasoning import final_answer, stated_tenths

CASES = json.loads((Path(__file__).parent.parent / "golden/clinical_rewards.json").read_text())[
    "cases"
]
REFINED = (
    "<understanding>u</understanding>\n<facts>f</facts>\n<plan>p</plan>\n"
    "<think>From the <facts> and <understanding>, as the <plan> says.</think>\n"
    "<final_answer>\\boxed{42}</final_answer>\n<self_assessment>CONFIDENCE</self_assessment>"
)


def cases(prefix: str, function: str = "", field: str = "") -> list[dict]:
    return [
        case
        for case in CASES
        if case["id"].startswith(prefix)
        and function in case["function"]
        and (not field or field in case["inputs"])
        and "value" in case["output"]
    ]


def score(name: str, text: str, answer: str | None, **fields: Any) -> float:
    found = load_reward(name, **fields)([TextSample(Prompt("question", answer=answer), text)])
    return found[0].item()


@pytest.mark.parametrize("case", cases("cr"), ids=lambda c: c["id"])
def test_clinical_r1_as_released_equals_the_reference(case: dict) -> None:
    given = case["inputs"]
    text = given["solution_str"].split(given["eos_token"])[0]
    letter = given["ground_truth"].split("<SEP>")[0]
    found = score("clinical_reasoning", text, letter, variant="released")
    assert found == pytest.approx(case["output"]["value"], rel=1e-12)


def test_the_fixed_clinical_reward_is_bounded_and_takes_no_offence_at_units() -> None:
    five = "<think>r</think><answer>" + "\\boxed{A}" * 5 + " x</answer>"
    assert score("clinical_reasoning", five, "B") == pytest.approx(-10 + 1.0)
    fever = "<think>r</think><answer>38.5 \u00b0C, \\boxed{B}</answer>"
    assert score("clinical_reasoning", fever, "B", script_weight=0.5) == 12.0
    thought = "<think>maybe \\boxed{A}</think><answer>so \\boxed{B}</answer>"
    assert score("clinical_reasoning", thought, "B") == 11.5


@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (r"\boxed{A} because of {x}", 1.5),
        (r"by {x}: \boxed{A}", 1.5),
        (r"\boxed{\text{A}} since \frac{1}{2}", 1.5),
        (r" \boxed{A} ", 1.0),
        (r"\boxed{A} or \boxed{A", 1.0),
    ],
)
def test_text_beside_a_box_may_have_braces_of_its_own(
    answer: str, expected: float, variant: Literal["fixed", "released"]
) -> None:
    reward = ClinicalReasoning(variant=variant)
    assert reward.shape(f"<think>r</think><answer>{answer}</answer>") == expected


def test_an_empty_text_has_no_script_bonus() -> None:
    for text in ("", " \n"):
        assert score("clinical_reasoning", text, "B", script_weight=0.5) == 0.0
    assert score("clinical_reasoning", "so", "B", script_weight=0.5) == 0.5


def test_only_the_letter_moves_the_clinical_reward_by_ten() -> None:
    text = "<think>r</think><answer>so \\boxed{%s}</answer>"
    gap = score("clinical_reasoning", text % "B", "B") - score(
        "clinical_reasoning", text % "A", "B"
    )
    assert gap == 10.0
    assert math.isnan(score("clinical_reasoning", text % "B", "b"))


@pytest.mark.parametrize("case", cases("p4", field="text"), ids=lambda c: c["id"])
def test_prompt4trust_as_released_equals_the_reference(case: dict) -> None:
    given, expected = case["inputs"], case["output"]["value"]
    found = score("stated_confidence", given["text"], given["gt_answer"], variant="released")
    assert found == pytest.approx(expected["reward"], rel=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is based on the scan, with confidence 80.", math.log(1e-12)),
        ("The answer is (B) with confidence: 80.", math.log(0.8)),
        ("The answer is B with confidence 0.9", math.log(0.9)),
        ("The answer is B with confidence 90%.", math.log(0.9)),
        ("The answer is B with confidence 1000", math.log(1e-12)),
        (
            "The answer is B with confidence 80%. The answer is C with confidence 60",
            math.log(1e-12),
        ),
        ("The answer is C with confidence 100.", math.log(1e-10) - 1),
        ("The answer is B with confidence 1.", math.log(0.01)),
        ("The answer is B with confidence 1.0", 0.0),
        ("ANSWER IS: B, Confidence of 90", math.log(0.9)),
        ("The answer is a benign tumour, with confidence 80.", math.log(1e-12)),
        ("The answer is I think B, with confidence 80.", math.log(1e-12)),
        ("The answer is B-cell lymphoma with confidence 80.", math.log(1e-12)),
        ("The answer is b with confidence 80.", math.log(1e-12)),
        ("The answer is Z with confidence 80.", math.log(1e-12)),
    ],
)
def test_what_the_fixed_reader_reads(text: str, expected: float) -> None:
    assert score("stated_confidence", text, "B") == pytest.approx(expected, rel=1e-12)


def test_letters_are_the_options_that_the_prompt_lists() -> None:
    def scored(question: str, letter: str, answer: str) -> float:
        text = f"The answer is {letter} with confidence 80."
        reward = load_reward("stated_confidence")
        return reward([TextSample(Prompt(question, answer=answer), text)]).item()

    two, five = "Which? A) cyst, B) tumour", "Which? A) a, B) b, C) c, D) d, E) e"
    assert scored(two, "C", "B") == math.log(1e-12)
    assert scored(five, "E", "E") == math.log(0.8)
    assert scored("Which?", "D", "B") == pytest.approx(math.log(0.2) - 1)
    for question, answer in ((two, "C"), ("Which?", "E"), (five, "B) b")):
        with pytest.raises(DataError, match="is none of its options"):
            scored(question, "A", answer)


def test_a_reply_of_blanks_is_read_in_one_pass() -> None:
    start = time.process_time()
    text = "The answer is B with confidence" + " " * 50_000
    assert score("stated_confidence", text, "B") == math.log(1e-12)
    assert time.process_time() - start < 0.5


def test_honesty_is_the_best_policy_and_being_right_beats_being_wrong() -> None:
    p = np.arange(1, 100) / 100
    text = "The answer is {} with confidence {:d}."
    right = np.array([score("stated_confidence", text.format("B", round(100 * x)), "B") for x in p])
    wrong = np.array([score("stated_confidence", text.format("C", round(100 * x)), "B") for x in p])
    for rate in (0.2, 0.5, 0.8):
        assert p[np.argmax(rate * right + (1 - rate) * wrong)] == pytest.approx(rate)
    assert np.allclose(right - wrong, np.log(p / (1 - p)) + 1)
    assert min(right.min(), wrong.min()) > math.log(1e-12)


@pytest.mark.parametrize("case", cases("p4", field="lm_answers"), ids=lambda c: c["id"])
def test_calibration_metrics_equal_prompt4trust_s(case: dict) -> None:
    given, expected = case["inputs"], case["output"]["value"]
    right = [float(a == b) for a, b in zip(given["gt_answers"], given["lm_answers"], strict=True)]
    p = given["lm_probabilities"]
    found = expected_calibration_error(p, right, bins=given["n_bins"])
    assert found == pytest.approx(expected["ece"], rel=1e-9, abs=1e-12)
    assert brier(p, right) == pytest.approx(expected["brier"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", cases("rf", "reward_fn"), ids=lambda c: c["id"])
def test_refine_as_released_equals_the_reference(case: dict) -> None:
    given = case["inputs"]
    found = score("structured_reasoning", given["text"], given["gold"], variant="released")
    assert found == pytest.approx(case["output"]["value"], rel=1e-12)


def test_refine_s_fixed_reader_wants_a_whole_number_up_to_ten_and_each_section_once() -> None:
    full = REFINED.replace("CONFIDENCE", "Confidence: 10/10")
    assert score("structured_reasoning", full, "42") == 1.0
    for stated in ("Confidence: 15/10", "Confidence: 100/10", "none"):
        text = REFINED.replace("CONFIDENCE", stated)
        assert score("structured_reasoning", text, "42") == 0.6875
    twice = full.replace("<plan>p</plan>", "<plan>p</plan><plan>q</plan>", 1)
    assert score("structured_reasoning", twice, "42") == 0.75


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<final_answer>42", "42"),
        ("<final_answer>42</final_answer><self_assessment>Confidence: 9/10", "42"),
        ("<final_answer>42\nConfidence: 9/10", "42"),
        ("<think>\\boxed{7}</think><final_answer>So it is 1,234.</final_answer>", "1,234"),
        ("<final_answer>$\\frac{1}{2}$</final_answer>", "\\frac{1}{2}"),
        ("<final_answer>It is 1/2, not \\boxed{2}</final_answer>", "2"),
        ("<final_answer>It is 3 or 1/2</final_answer>", "1/2"),
        ("<final_answer>It is 101_{2}</final_answer>", "101_{2}"),
        ("<think>as <final_answer> says</think><final_answer>x = 3</final_answer>", "x = 3"),
        ("<final_answer>none</final_answer> 5", "none"),
        ("<self_assessment>Confidence: 9/10</self_assessment>", ""),
        ("I get 42. Confidence: 9/10", "42"),
    ],
)
def test_the_answer_is_read_in_its_own_section(text: str, expected: str) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<self_assessment>Sure.\n Confidence: 9/10 \n</self_assessment>", 9),
        ("<self_assessment>Confidence: 0/10", 0),
        ("<think>Confidence: 9/10</think><self_assessment>\nConfidence: 2/10\n", 2),
        ("<think>\nConfidence: 9/10\n</think>", None),
        ("<self_assessment>My Confidence: 9/10 is high</self_assessment>", None),
        ("<self_assessment>Confidence: 9/10\nConfidence: 1/10</self_assessment>", None),
        ("<self_assessment>\nConfidence: 11/10\n</self_assessment>", None),
        ("<self_assessment>s</self_assessment>\nConfidence: 9/10", None),
    ],
)
def test_the_confidence_is_one_line_of_the_self_assessment(text: str, expected: int | None) -> None:
    assert stated_tenths(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("101_2", "101", 0.0),
        ("101", "101_{2}", 0.0),
        ("101_2", "101_{\\text{two}}", 1.0),
        ("(1F)_{16}", "1f_16", 1.0),
        ("101_3", "101_2", 0.0),
        ("101_{10}", "101", 1.0),
        ("x = 101_2", "101_2", 1.0),
    ],
)
def test_a_number_and_one_in_another_base_differ(
    answer: str, reference: str, expected: float
) -> None:
    assert score("math_answer", f"\\boxed{{{answer}}}", reference, seconds=30.0) == expected
    full = REFINED.replace("CONFIDENCE", "none").replace("\\boxed{42}", f"\\boxed{{{answer}}}")
    found = score("structured_reasoning", full, reference, seconds=30.0)
    assert found == (0.6875 if expected else 0.4375)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("\\boxed{\\frac{1}{2}}", "0.5", 1.0),
        ("so \\boxed{1} then \\boxed{2}", "2", 1.0),
        ("<answer>1/2</answer>", "\\frac{1}{2}", 1.0),
        ("\\boxed{3}", "4", 0.0),
        ("no answer", "4", 0.0),
        ("\\boxed{)(}", "4", 0.0),
    ],
)
def test_math_answers_are_compared_by_value(answer: str, reference: str, expected: float) -> None:
    assert score("math_answer", answer, reference, seconds=30.0) == expected


ENDLESS = "123456789123!"
"""sympy multiplies this one out."""


def test_a_comparison_past_its_time_is_no_score_and_the_next_one_works() -> None:
    worker = MathWorker()
    assert worker.equal("4", "4", seconds=30.0) is True
    first = worker.process
    assert worker.equal(ENDLESS, "8", seconds=2.0) is None
    assert first is not None and not first.is_alive()
    assert worker.equal("4", "5", seconds=30.0) is False
    worker.stop()


def test_a_worker_that_was_killed_is_no_wrong_answer_and_is_started_again() -> None:
    worker = MathWorker()
    assert worker.equal("4", "4", seconds=30.0) is True
    assert worker.process is not None
    worker.process.kill()
    worker.process.join()
    assert worker.equal("4", "4", seconds=30.0) is None
    assert worker.equal("4", "4", seconds=30.0) is True
    worker.stop()


def test_a_slow_comparison_scores_nan_and_so_does_a_prompt_without_a_reference() -> None:
    assert math.isnan(score("math_answer", "\\boxed{8}", ENDLESS, seconds=2.0))
    assert math.isnan(score("math_answer", "\\boxed{4}", None))


def test_boxes_nest_and_an_open_one_is_none() -> None:
    assert boxes("a \\boxed{x_{1}} b \\boxed {y} \\boxed z \\boxed{\\}}") == ["x_{1}", "y", "\\}"]
    assert last_box("\\boxed{open") is None


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("exact", "<answer> Chest  X-RAY </answer>", 1.0),
        ("exact", "<answer>chest</answer>", 0.0),
        ("levenshtein", "<answer>chest x-ra</answer>", 10 / 11),
        ("anls", "<answer>chest</answer>", 0.0),
        ("anls", "<answer>radiograph</answer>", 1.0),
        ("anls", "no block", 0.0),
    ],
)
def test_strings_match_by_their_rule(rule: str, text: str, expected: float) -> None:
    found = score("string_match", text, "chest x-ray|Radiograph", rule=rule)
    assert found == pytest.approx(expected)
    assert math.isnan(score("string_match", text, " "))
