"""Prompts without a proper reference are refused before a run, for the rewards that read it."""

from __future__ import annotations

import pytest

from mmrl.config import ConfigError
from mmrl.reward import RewardTable
from mmrl.types import Prompt

GOOD = Prompt("Is it A) x or B) y?", answer="B", metadata={"problem_type": "multiple choice"})
BARE = Prompt("Is it A) x or B) y?")
READERS = [
    *("accuracy", "cad_executes", "cad_geometry", "clinical_reasoning", "easyr1_math"),
    *("easyr1_r1v", "math_answer", "multiple_choice", "sophia_outcome", "stated_confidence"),
    *("string_match", "structured_reasoning"),
]


@pytest.mark.parametrize("name", READERS)
def test_a_prompt_without_a_reference_is_named(name: str) -> None:
    table = RewardTable.parse({name: 1.0})
    table.check_references([GOOD, GOOD])
    message = rf"rewards\.{name}: 1 of 3 prompts .* number 2, 'Is it A\) x or B\) y\?': "
    with pytest.raises(ConfigError, match=message):
        table.check_references([GOOD, BARE, GOOD])


def test_a_reference_that_is_none_of_the_kind_is_refused() -> None:
    odd = Prompt("How many?", answer="7", metadata={"problem_type": "multiple choice"})
    with pytest.raises(ConfigError, match="needs a letter, got '7'"):
        RewardTable.parse({"sophia_outcome": 1.0}).check_references([odd])


def test_watched_rewards_and_rewards_without_references_take_any_prompt() -> None:
    table = RewardTable.parse({"answer_format": 1.0, "accuracy": 0.0})
    table.check_references([BARE])
