"""Retrieval and AUC of a score over prompts and samples."""

from __future__ import annotations

import numpy as np
import pytest

from mmrl.evaluate.alignment import retrieval


def test_own_samples_on_top_are_found_first_and_a_reversed_score_finds_none() -> None:
    best = retrieval([np.eye(8)])
    assert (best.at_1[0], best.at_5[0], best.auc[0]) == (1, 1, 1)
    worst = retrieval([-np.eye(8)])
    assert (worst.at_1[0], worst.at_5[0], worst.auc[0]) == (0, 0, 0)


def test_hand_numbers_of_one_table() -> None:
    table = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.7, 0.8, 0.6]])
    found = retrieval([table])
    assert found.at_1[0] == pytest.approx(1 / 3)
    assert found.auc[0] == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found.prompts, found.candidates) == (3, 3)


def test_a_score_that_says_nothing_is_at_chance() -> None:
    found = retrieval([np.zeros((9, 9))])
    assert found.auc[0] == 0.5 and found.at_1[0] == 0


def test_prompts_of_one_table_are_not_ranked_against_another() -> None:
    found = retrieval([np.eye(3), 5 * np.eye(5)])
    assert found.auc[0] == 1 and (found.prompts, found.candidates) == (8, 34 / 8)


def test_a_score_that_is_not_finite_or_not_square_is_refused() -> None:
    broken = np.eye(3)
    broken[0, 1] = np.nan
    for table in (broken, np.ones((2, 3)), np.ones((1, 1))):
        with pytest.raises(ValueError, match="square tables of finite scores"):
            retrieval([table])
