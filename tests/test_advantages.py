"""Advantages: references, degenerate groups, samples that could not be scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.advantages import (
    batch_normalized,
    batch_scaled,
    best_of_group,
    centered,
    group_normalized,
    leave_one_out,
)
from mmrl.mixing import normalized

GOLDEN = Path(__file__).parent / "golden"
OBJECTIVES = json.loads((GOLDEN / "objectives.json").read_text())
SAGE = json.loads((GOLDEN / "sage_aux.json").read_text())["advantages"]


def groups(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(2, -1)


@pytest.mark.parametrize(
    ("case", "function"),
    [
        ("adv_grpo_eps1e-06", lambda r: group_normalized(r, eps=1e-6)),
        ("adv_dr_grpo", centered),
        ("adv_rloo", leave_one_out),
        ("adv_degenerate_groups", group_normalized),
        ("adv_batch_std", lambda r: batch_scaled(r, std="sample")),
        ("adv_passk", best_of_group),
    ],
)
def test_advantages_equal_the_reference(case: str, function) -> None:
    found = OBJECTIVES[case]
    torch.testing.assert_close(
        function(groups(found["inputs"]["rewards"])), groups(found["expected"]["advantages"])
    )


def test_population_std_is_sage_grpos_advantage() -> None:
    rewards = torch.tensor(SAGE["rewards"], dtype=torch.float64)
    expected = torch.tensor(SAGE["sage_population_std_clamp1e6"], dtype=torch.float64)
    torch.testing.assert_close(
        group_normalized(rewards, std="population", eps=1e-12), expected, atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "std", "eps"),
    [
        ("dance_sample_std_plus1e8", "sample", 1e-8),
        ("flow_group_population_std_plus1e4", "population", 1e-4),
    ],
)
def test_other_trainers_differ_in_std_and_epsilon_only(name: str, std, eps: float) -> None:
    rewards = torch.tensor(SAGE["rewards"], dtype=torch.float64)
    expected = torch.tensor(SAGE[name], dtype=torch.float64)
    torch.testing.assert_close(group_normalized(rewards, std=std, eps=eps), expected)


def test_one_std_for_all_groups_is_that_of_the_rewards_themselves() -> None:
    """Not of their deviations: groups far apart make every advantage small."""
    rewards = torch.tensor(SAGE["rewards"], dtype=torch.float64)
    expected = torch.tensor(SAGE["flow_global_population_std_plus1e4"], dtype=torch.float64)
    torch.testing.assert_close(batch_scaled(rewards), expected)
    apart = torch.tensor([[0.0, 1.0], [100.0, 101.0]], dtype=torch.float64)
    assert batch_scaled(apart).abs().max().item() == pytest.approx(0.5 / 2500.25**0.5, rel=1e-5)


def test_an_unscored_sample_leaves_the_std_of_all_groups() -> None:
    nan = float("nan")
    rewards = torch.tensor([[1.0, 2.0, nan], [nan, 5.0, 9.0], [nan, nan, nan]])
    found = batch_scaled(rewards)
    std = torch.tensor([1.0, 2.0, 5.0, 9.0]).std(correction=0)
    expected = torch.tensor([[-0.5, 0.5, 0.0], [0.0, -2.0, 2.0], [0.0, 0.0, 0.0]]) / std
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert batch_scaled(torch.full((2, 2), nan)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_group_by_hand() -> None:
    """Rewards 0, 0, 3: mean 1, squared deviations 1 + 1 + 4."""
    rewards = torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64)
    assert centered(rewards).tolist() == [[-1, -1, 2]]
    assert leave_one_out(rewards).tolist() == [[-1.5, -1.5, 3]]
    found = group_normalized(rewards, std="sample", eps=0)
    assert found[0].tolist() == pytest.approx([-(3**-0.5), -(3**-0.5), 2 * 3**-0.5])
    found = group_normalized(rewards, std="population", eps=0)
    assert found[0].tolist() == pytest.approx([-(2**-0.5), -(2**-0.5), 2 * 2**-0.5])


@pytest.mark.parametrize("function", [centered, group_normalized, leave_one_out])
def test_advantages_follow_a_shuffle_and_add_to_0_in_each_group(function) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn((3, 5), generator=generator, dtype=torch.float64)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(function(rewards[:, order]), function(rewards)[:, order])
    torch.testing.assert_close(function(rewards).sum(1), torch.zeros(3, dtype=torch.float64))


def test_groups_do_not_see_each_other_but_a_batch_is_one_group() -> None:
    rewards = torch.tensor([[0.0, 1.0], [10.0, 12.0]], dtype=torch.float64)
    torch.testing.assert_close(group_normalized(rewards)[:1], group_normalized(rewards[:1]))
    found = batch_normalized(rewards, eps=0)
    assert found.mean().item() == pytest.approx(0, abs=1e-15)
    assert found.std().item() == pytest.approx(1)
    assert found[0, 1] < 0 < found[1, 0]


@pytest.mark.parametrize("function", [centered, group_normalized, leave_one_out])
def test_an_unscored_sample_gets_0_and_leaves_the_others_as_if_absent(function) -> None:
    rewards = torch.tensor([[1.0, 2.0, float("nan"), 4.0]], dtype=torch.float64)
    found = function(rewards)
    assert found[0, 2] == 0
    kept = function(rewards[:, [0, 1, 3]])
    torch.testing.assert_close(found[:, [0, 1, 3]], kept)


@pytest.mark.parametrize("function", [centered, group_normalized, leave_one_out])
def test_equal_rewards_and_lone_samples_get_exactly_0(function) -> None:
    """In float64 three times 0.1 is not 0.3, and the mean not 0.1."""
    nan = float("nan")
    rewards = torch.tensor([[0.1] * 3, [0.7, nan, nan], [nan, nan, nan]], dtype=torch.float64)
    assert function(rewards).tolist() == [[0.0] * 3] * 3


def test_normalized_advantages_ignore_scale_and_shift() -> None:
    rewards = torch.tensor([[1.0, 2.0, 5.0], [0.0, 0.5, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        group_normalized(3 * rewards + 7, eps=0), group_normalized(rewards, eps=0)
    )
    assert group_normalized(rewards, eps=0).std(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("eps", [1e-4, 1e-6, 1e-8])
def test_rounding_noise_of_equal_rewards_is_no_advantage(eps: float) -> None:
    rewards = torch.tensor([[0.8, 0.8 + 6e-8, 0.8 - 6e-8, 0.8], [0.1, 0.9, 0.5, 0.2]])
    assert rewards[0].unique().numel() > 1
    found = group_normalized(rewards, eps=eps)
    assert (found[0] == 0).all() and (found[1] != 0).all()
    scores = normalized({"a": rewards}, {"a": 1.0}, eps=eps)
    assert (batch_normalized(scores)[0].abs() < 1e-3).all()


def test_the_best_of_a_group_learns_by_its_lead_over_the_second() -> None:
    """An abstained sample is nobody's rival; a group of one score has no lead."""
    nan = float("nan")
    rewards = torch.tensor([[1.0, nan, 3.0], [nan, nan, 5.0], [2.0, 2.0, 2.0]])
    found = best_of_group(rewards)
    assert found[0].tolist() == pytest.approx([0.0, 0.0, 2 / 2**0.5], rel=1e-5)
    assert found[1:].tolist() == [[0.0] * 3] * 2
