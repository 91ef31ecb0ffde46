"""GUI-Libra's scaling of negative advantages by a group's success."""

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.advantages import group_normalized, soften_negatives

GOLDEN = Path(__file__).parent / "golden" / "gui_rewards.json"
CASES = {
    case["id"]: case
    for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]
    if "lambda0" in case["inputs"]
}
NEGATIVE = "gl099"
"""Its lambda is -0.875: refused by default, 0 as released."""


def softened(name: str, success: float | None = None, **fields) -> torch.Tensor:
    inputs = CASES[name]["inputs"]
    rewards = torch.tensor([inputs["rewards"]], dtype=torch.float64)
    rate = inputs["success_rate"] if success is None else success
    return soften_negatives(
        group_normalized(rewards, std="sample", eps=1e-6),
        torch.tensor([rate], dtype=torch.float64),
        initial=float(inputs["lambda0"]),
        slope=float(inputs["kappa"]),
        **fields,
    )[0]


@pytest.mark.parametrize("name", [name for name in CASES if name != NEGATIVE])
def test_the_papers_rule_of_the_golden_case(name):
    expected = CASES[name]["output"]["value"]["paper_rule_float64"]["advantage"]
    assert softened(name).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_released_rule_of_the_golden_case(name):
    """Its success rate is the mean reward, format part included; float32 there."""
    rewards = CASES[name]["inputs"]["rewards"]
    expected = CASES[name]["output"]["value"]["peer_rule_float32"]
    found = softened(name, sum(rewards) / len(rewards), variant="released")
    assert found.tolist() == pytest.approx(expected, abs=2e-6)


def test_the_mean_reward_is_not_the_success_rate():
    """One right of four with full format: lambda 0.875 by success, 0.9875 by mean reward 0.325."""
    rewards = torch.tensor([[1.0, 0.1, 0.1, 0.1]], dtype=torch.float64)
    advantages = group_normalized(rewards, eps=0)
    scales = [
        soften_negatives(advantages, torch.tensor([p]).double(), initial=0.5, slope=1.5)[0, 1]
        / advantages[0, 1]
        for p in (0.25, 0.325)
    ]
    assert scales == pytest.approx([0.875, 0.9875])


def test_a_factor_of_1_changes_nothing_and_positive_advantages_never_change():
    generator = torch.Generator().manual_seed(0)
    advantages = group_normalized(torch.rand((5, 6), generator=generator, dtype=torch.float64))
    rates = torch.linspace(0, 1, 5, dtype=torch.float64)
    plain = soften_negatives(advantages, rates, initial=1.0, slope=0.0)
    assert plain.equal(advantages)
    found = soften_negatives(advantages, rates, initial=0.2, slope=0.5)
    assert found[advantages >= 0].equal(advantages[advantages >= 0])
    assert bool((found[advantages < 0] < 0).all())
    assert found.argsort(1).equal(advantages.argsort(1))
    scale = 0.2 + 0.5 * rates
    drift = (1 - scale) * advantages.clamp(min=0).sum(1)
    torch.testing.assert_close(found.sum(1), drift)


@pytest.mark.parametrize(("initial", "slope", "rising"), [(0.5, 1.5, True), (1.4, -0.5, False)])
def test_the_factor_is_capped_at_1_and_follows_the_sign_of_the_slope(initial, slope, rising):
    rates = torch.linspace(0, 1, 11, dtype=torch.float64)
    advantages = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(11, 2)
    found = -soften_negatives(advantages, rates, initial=initial, slope=slope)[:, 1]
    assert found.tolist() == pytest.approx([min(initial + slope * p / 10, 1) for p in range(11)])
    assert bool((found.diff() >= 0).all()) is rising


def test_a_group_without_a_score_stays_as_it_is():
    advantages = torch.tensor([[0.0, 0.0]])
    found = soften_negatives(advantages, torch.tensor([math.nan]), initial=0.5, slope=1.0)
    assert found.equal(advantages)


@pytest.mark.parametrize(
    ("initial", "slope", "message"),
    [
        (math.nan, 1.0, "must be finite"),
        (0.5, math.inf, "must be finite"),
        (-0.1, 2.0, "would reward wrong samples"),
        (0.4, -0.5, "would reward wrong samples"),
    ],
)
def test_factors_that_have_no_meaning_are_refused(initial, slope, message):
    with pytest.raises(ValueError, match=message):
        soften_negatives(torch.zeros(1, 2), torch.zeros(1), initial=initial, slope=slope)


def test_a_rate_outside_0_1_and_a_group_of_one_are_refused():
    with pytest.raises(ValueError, match="outside"):
        soften_negatives(torch.zeros(1, 2), torch.tensor([1.1]), initial=0.5, slope=0.5)
    with pytest.raises(ValueError, match="group of 1"):
        soften_negatives(torch.zeros(1, 1), torch.tensor([1.0]), initial=0.5, slope=0.5)
