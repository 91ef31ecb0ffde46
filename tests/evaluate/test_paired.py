"""Two arms on the same prompts: references, and what the p-values promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmrl.evaluate.paired import (
    Wins,
    count_wins,
    holm,
    mcnemar_p_value,
    preference_accuracy,
    sign_flip_p_value,
)

CASES = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())


def cases(function: str) -> list[dict]:
    return [case for case in CASES if case["fn"] == function]


@pytest.mark.parametrize("case", cases("win_rate"), ids=lambda c: c["id"])
def test_win_rate_and_its_interval_equal_the_reference(case: dict) -> None:
    given, expected = case["in"], case["out"]
    found = Wins(given["wins"], given["losses"], given["ties"])
    assert found.rate == pytest.approx(expected["win_rate"], rel=1e-12)
    wilson = (expected["wilson_low"], expected["wilson_high"])
    assert found.interval() == pytest.approx(wilson, rel=1e-12)


@pytest.mark.parametrize("case", cases("pref_accuracy"), ids=lambda c: c["id"])
def test_preference_accuracy_equals_the_reference(case: dict) -> None:
    found = preference_accuracy(case["in"]["human"], case["in"]["score_diff"])
    expected = case["out"]
    assert found.with_ties == pytest.approx(expected["with_ties"], rel=1e-12)
    assert found.epsilon == expected["best_epsilon"]
    assert found.without_ties == pytest.approx(expected["without_ties"], rel=1e-12)


def test_accuracy_with_ties_is_at_least_that_of_no_model_tie_and_of_all_ties() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        human, gaps = random.integers(-1, 2, 30), random.normal(size=30)
        found = preference_accuracy(human.tolist(), gaps.tolist())
        never = float((np.sign(gaps) == human).mean())
        assert found.with_ties >= max(never, float((human == 0).mean()))


def test_a_pair_with_a_missing_score_is_not_counted() -> None:
    found = count_wins([0.0, 1.0, math.nan, 2.0], [1.0, 1.0, 3.0, 0.0])
    assert found == Wins(wins=1, losses=1, ties=1)
    with pytest.raises(ValueError, match="no pair"):
        count_wins([math.nan], [1.0])


def test_sign_flips_reject_five_percent_of_true_nulls() -> None:
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 2).tolist()
    found = [
        sign_flip_p_value(random.normal(size=40).tolist(), groups, resamples=200, seed=trial)
        for trial in range(400)
    ]
    assert 0.025 < np.mean(np.array(found) <= 0.05) < 0.085


def test_sign_flips_find_a_clear_gap_and_keep_groups_together() -> None:
    gaps = [1.0] * 40
    assert sign_flip_p_value(gaps, list(range(40))) < 0.001
    assert sign_flip_p_value(gaps, [0] * 20 + [1] * 20) > 0.4


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert holm([0.01, 0.04, 0.03])[2] == pytest.approx(0.06)


def test_mcnemar_counts_discordant_pairs_alone() -> None:
    before, after = [False] * 6 + [True] * 50, [True] * 6 + [True] * 50
    assert mcnemar_p_value(before, after) == pytest.approx(2 / 2**6)
    assert mcnemar_p_value([True], [True]) == 1.0
