"""EasyR1's rewards, and SophiaVL-R1's r1v, against what the released functions gave."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rewards  # noqa: F401
from mmrl.config import ConfigError
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample
from rewards.easyr1_dapo import EasyR1Dapo, tidy_answer
from rewards.easyr1_math import boxed_after_thought, tightened

GOLDEN = Path(__file__).parents[1] / "golden" / "easyr1_rewards.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]}
OURS = {
    "er020": 1.0,  # a right answer over several lines
    "sv100": 1.0,
}
"""r1v, where mmrl differs from the release on purpose."""
LENGTHS = {"max_length": 1000, "buffer_length": 200}


def of(function: str) -> list[str]:
    return [name for name, case in CASES.items() if function in case["function"]]


def score(name: str, text: str, reference: str | None, *, tokens: int = 1, **fields: Any) -> float:
    sample = TextSample(Prompt("?", answer=reference), text, num_tokens=tokens)
    return load_reward(name, **fields)([sample]).item()


@pytest.mark.parametrize("name", of("math"))
def test_math_equals_the_reference(name: str) -> None:
    given, expected = CASES[name]["inputs"], CASES[name]["output"]["value"]
    for weight in (given["format_weight"], 0.0, 1.0):
        found = score(
            "easyr1_math",
            given["response"],
            given["ground_truth"],
            format_weight=weight,
            seconds=30,
        )
        parts = (1 - weight) * expected["accuracy"] + weight * expected["format"]
        assert found == pytest.approx(parts, rel=1e-12)


@pytest.mark.parametrize("variant", ["released", "fixed"])
@pytest.mark.parametrize("name", of("r1v"))
def test_r1v_equals_the_reference_but_for_answers_over_several_lines(
    name: str, variant: str
) -> None:
    """The one case that raises (sv102) does so for its number of arguments, which a text lacks."""
    case = CASES[name]
    given = case["inputs"]
    value = case["output"].get("value", 1.0)
    expected = value["overall"] if isinstance(value, dict) else value
    if variant == "fixed":
        expected = OURS.get(name, expected)
    text = given.get("response", given.get("predict_str"))
    assert score("easyr1_r1v", text, given["ground_truth"], variant=variant, seconds=30) == expected
    assert expected == case.get("sane_expectation", expected) or variant == "released"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>42</answer><answer>41</answer>", 0.0),
        ("<answer>42", 0.0),
        ("<think></think><answer>42</answer>", 0.5),
        ("", 0.0),
    ],
)
def test_r1v_wants_one_answer_block_or_none(text: str, expected: float) -> None:
    assert score("easyr1_r1v", text, "42") == expected


@pytest.mark.parametrize("name", of("dapo"))
def test_dapo_equals_the_reference(name: str) -> None:
    given, expected = CASES[name]["inputs"], CASES[name]["output"]["value"]
    reward = EasyR1Dapo(
        max_length=given["max_response_length"],
        buffer_length=given["overlong_buffer_length"],
        penalty_factor=given["overlong_penalty_factor"],
    )
    sample = TextSample(
        Prompt("?", answer=given["ground_truth"]), given["response"], given["response_length"]
    )
    assert reward([sample]).item() == pytest.approx(expected["overall"], rel=1e-12)
    assert reward.overlong(given["response_length"]) == pytest.approx(expected["overlong"])


def test_the_length_penalty_is_continuous_falls_and_ends_at_minus_one() -> None:
    reward = EasyR1Dapo(**LENGTHS)
    found = [reward.overlong(length) for length in range(1300)]
    assert found[800] == 0 and found[1000] == found[1299] == -1
    steps = [before - after for before, after in pairwise(found)]
    assert min(steps) >= 0 and max(steps) == pytest.approx(1 / 200)
    with pytest.raises(ValueError, match="length must be >= 0"):
        reward.overlong(-1)


def test_dapo_reads_the_last_answer_line_of_the_final_300_characters() -> None:
    def scored(text: str) -> float:
        return score("easyr1_dapo", text, "42", **LENGTHS)

    assert scored("Answer: 41\nso\nANSWER:42\n") == 1
    assert scored("Answer: 42\nAnswer: 41") == -1
    assert scored("Answer: 42" + " " * 300) == -1
    assert scored("It is 42.") == -1
    assert -2 <= score("easyr1_dapo", "no", "42", tokens=2000, **LENGTHS) == -2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"x = \boxed{y = \frac{1}{2}}", r"\frac{1}{2}"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"\left( 3, 4 \right)", "(3,4)"),
        ("1,234,567", "1234567"),
        (r"12\,\text{ cm}.", "12"),
        (r"90^\circ", "90"),
        (r"\$5.50", "5.50"),
        ("50 \\%", "50"),
        ("\u22123", "-3"),
        ("2 pi", "2pi"),
    ],
)
def test_an_answer_line_is_tidied(text: str, expected: str) -> None:
    assert tidy_answer(text) == expected


@pytest.mark.parametrize("name", ["easyr1_math", "easyr1_r1v", "easyr1_dapo"])
def test_without_a_reference_or_a_count_of_tokens_there_is_no_score(name: str) -> None:
    fields = LENGTHS if name == "easyr1_dapo" else {}
    for reference in (None, "", " ", "<answer></answer>"):
        assert math.isnan(score(name, "Answer: 4", reference, **fields))
    if fields:
        assert math.isnan(score(name, "Answer: 4", "4", tokens=0, **fields))


def test_blanks_around_tags_do_not_change_the_math_reward() -> None:
    tight = "<think>1/2</think>so \\boxed{1/2}"
    loose = "< think >1 / 2 < / think > so \\boxed{1 / 2}"
    assert tightened(loose) == tight
    for text in (tight, loose):
        assert score("easyr1_math", text, "0.5", seconds=30) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think>\\boxed{4", 0.0),
        ("<think>a</think>\\boxed{4} or \\boxed{4", 0.1),
        ("<think>\\boxed{4}</think> it is 4", 0.9),
    ],
)
def test_the_last_box_counts_and_must_close(text: str, expected: float) -> None:
    assert score("easyr1_math", text, "4") == pytest.approx(expected)


def test_long_nonsense_is_read_in_one_pass() -> None:
    start = time.process_time()
    for text in ("<think>" + "</think>\\boxed{" * 20_000, "< " * 50_000, " " * 50_000):
        assert not boxed_after_thought(tightened(text))
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("name", "fields", "key"),
    [
        ("easyr1_math", {"format_weight": 1.1}, "format_weight"),
        ("easyr1_r1v", {"format_weight": -0.1}, "format_weight"),
        ("easyr1_dapo", {"max_length": 100, "buffer_length": 101}, "buffer_length"),
        ("easyr1_dapo", {"max_length": 100, "buffer_length": 0}, "buffer_length"),
        ("easyr1_dapo", {"buffer_length": 10}, "max_length"),
    ],
)
def test_a_wrong_field_is_named(name: str, fields: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_reward(name, **fields)
