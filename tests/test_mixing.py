"""Scores into one reward: weights, abstentions, invariance."""

import pytest
import torch

from mmrl.mixing import normalized, weighted_sum

A = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
B = torch.tensor([[0.0, -1.0, float("nan")]], dtype=torch.float64)


def test_a_weighted_sum_is_a_weighted_sum_and_an_abstention_stays_one() -> None:
    found = weighted_sum({"a": A, "b": B}, {"a": 2.0, "b": 0.5})
    assert found[0, :2].tolist() == [2.0, 3.5]
    assert found[0, 2].isnan()


def test_a_reward_of_weight_0_never_matters() -> None:
    assert weighted_sum({"a": A, "b": B}, {"a": 1.0, "b": 0.0}).equal(A)


def test_all_weights_0_is_an_error() -> None:
    with pytest.raises(ValueError, match="every weight is 0"):
        weighted_sum({"a": A}, {"a": 0.0})


def test_normalized_rewards_do_not_care_for_the_scale_of_one_of_them() -> None:
    other = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    weights = {"a": 1.0, "b": 1.0}
    torch.testing.assert_close(
        normalized({"a": A, "b": other}, weights, eps=0),
        normalized({"a": 1000 * A + 5, "b": other}, weights, eps=0),
    )
    assert not weighted_sum({"a": A, "b": other}, weights).equal(
        weighted_sum({"a": 1000 * A, "b": other}, weights)
    )
