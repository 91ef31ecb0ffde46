"""Judges' replies: the reference cases, and everything that must not become a number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mmrl.data.judge_scores import (
    pooled_log_prob,
    read_answer_score,
    read_final_score,
    read_score_tag,
    yes_probability,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/judges.json").read_text())
NONE, SEVERAL, OUTSIDE = "no score", "several scores", "out of range"
ANSWERS = {
    "sv104": 0.85,
    "sv105": 0.8,
    "sv106": 0.85,
    "sv107": 1.0,
    "sv110": 0.3,
    "sv112": 0.4,
    "sv113": NONE,
    "sv115": NONE,
    "sv118": NONE,
    "sv120": OUTSIDE,
    "sv122": NONE,
    "sv123": NONE,
    "sv124": NONE,
    "sv125": 0.5,
    "sv126": NONE,
}
"""What one plain number in [0, 1] makes of the reference cases of SophiaVL-R1's parser."""


@pytest.mark.parametrize("case", GOLDEN["final_score"], ids=lambda case: case["id"])
def test_final_score_equals_the_reference(case: dict) -> None:
    found = read_final_score(case["text"])
    assert found.text == case["text"]
    if case["score"] is None:
        assert math.isnan(found.score) and found.problem
    else:
        assert (found.score, found.problem) == (case["score"], "")
        assert found.score / 5 == pytest.approx(case["reward"], rel=1e-12)


@pytest.mark.parametrize("case", GOLDEN["yes_probability"], ids=lambda case: case["id"])
def test_yes_probability_equals_the_reference(case: dict) -> None:
    found = yes_probability(case["yes"], case["no"])
    expected = math.nan if case["p_yes"] is None else case["p_yes"]
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("case", GOLDEN["answer_score"], ids=lambda case: case["id"])
def test_answer_score_of_the_reference_cases(case: dict) -> None:
    """Equal to the release where that is right; a number or an abstention where it is not."""
    found, expected = read_answer_score(case["text"]), ANSWERS[case["id"]]
    if isinstance(expected, str):
        assert math.isnan(found.score) and found.problem == expected
    else:
        assert (found.score, found.problem) == (expected, "")
    if case["wrong"]:
        assert found.score != case["released"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<answer>0.2</answer> or rather <answer>0.4</answer>", SEVERAL),
        ("I cannot grade this response.", NONE),
        ("<answer>7/10</answer>", NONE),
        ("<answer>1.01</answer>", OUTSIDE),
        ("<answer>+0.5</answer>", NONE),
        ("<answer>1e-1</answer>", NONE),
        ("<answer>nan</answer>", NONE),
        ("<answer>0.5.1</answer>", NONE),
        ("<answer>.</answer>", NONE),
        ("<answer>0.5", NONE),
        ("<answer>１</answer>", NONE),  # noqa: RUF001 (a digit of another script)
    ],
)
def test_anything_but_one_plain_number_is_no_answer_score(text: str, problem: str) -> None:
    found = read_answer_score(text)
    assert (math.isnan(found.score), found.problem, found.text) == (True, problem, text)


def test_tenths_are_rounded_to_only_where_asked() -> None:
    assert read_answer_score("<answer>0.86</answer>", grid=True).score == 0.9
    assert read_answer_score("<answer>0.86</answer>").score == 0.86


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Final Score: 35", OUTSIDE),
        ("Final Score: 0", OUTSIDE),
        ("Final Score: -3", OUTSIDE),
        ("Final Score: 4/10", OUTSIDE),
        ("Final Score: 3 or 4", NONE),
        ("Final Score: 3-4", NONE),
        ("Final Score: 4.5.2", NONE),
        ("Final Score: 4,5", NONE),
        ("Final Score: four", NONE),
        ("Sorry, I can't assess this video.", NONE),
        ("", NONE),
        ("Final Score: 2\nFinal Score: 3", SEVERAL),
    ],
)
def test_anything_but_one_clear_grade_is_no_final_score(text: str, problem: str) -> None:
    found = read_final_score(text)
    assert (math.isnan(found.score), found.problem) == (True, problem)


def test_final_scores_that_agree_are_one_and_the_last_counts_where_asked() -> None:
    assert read_final_score("**Final Score:** 4\nfinal score: 4.0").score == 4
    assert read_final_score("Final Score: 2\nFinal Score: 3", last=True).score == 3


def test_a_score_tag_holds_one_number_from_1_to_5() -> None:
    assert read_score_tag("<Score>4</Score>").score == 4
    for text in (
        "<Score>0</Score>",
        "<Score>good</Score>",
        "4",
        "<Score>1</Score><Score>2</Score>",
    ):
        assert math.isnan(read_score_tag(text).score)


def test_yes_and_no_swap_to_the_complement() -> None:
    for yes, no in ((-3.0, -0.05), (-0.4, -800.0), (-900.0, -1.0)):
        assert yes_probability(yes, no) + yes_probability(no, yes) == pytest.approx(1, rel=1e-12)
    assert yes_probability(-2.0, -2.0) == 0.5


def test_spellings_of_a_word_are_summed_and_other_words_are_not() -> None:
    first = {"Yes": math.log(0.3), " yes": math.log(0.2), "YES": math.log(0.1), "yesterday": -0.1}
    found = pooled_log_prob(first, "yes")
    assert found is not None and math.exp(found) == pytest.approx(0.6, rel=1e-12)
    assert pooled_log_prob(first, "no") is None
