"""SophiaVL-R1's choices: what is the outcome, what the judge adds, and when it is trusted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError, apply_overrides, read_yaml
from mmrl.train.loop import load_config
from mmrl.train.metrics import score_metrics, score_sums
from pipelines.vision_language.sophia_vl import SophiaVl

NAN = float("nan")
TREE: dict[str, Any] = {
    "pipeline": "sophia_vl",
    "output": "runs/x",
    "model": "assets/tiny-qwen2_5_vl",
    "prompts": "x.jsonl",
    "rewards": {
        "accuracy": {"weight": 1.0},
        "answer_format": {"weight": 0.0},
        "thinking_reward": {"weight": 0.3, "judge": {"kind": "local", "model": "x"}},
    },
    "train": {"steps": 1500, "prompts_per_step": 1, "rows": 8, "optimizer": {"lr": 1e-6}},
}


def config(*overrides: str) -> SophiaVl:
    return load_config(apply_overrides(TREE, overrides))  # pyright: ignore


def scores(**rows: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([values], dtype=torch.float64) for name, values in rows.items()}


MIXED = scores(
    accuracy=[1.0, 0.0, 1.0, 1.0],
    answer_format=[1.0, 1.0, 1.0, 0.0],
    thinking_reward=[0.2, 0.8, 0.4, 0.6],
)
"""The last answer is right but badly formed: its outcome is 0."""


def test_the_first_step_by_hand() -> None:
    """mu+ = 0.3, mu- = 0.7, gamma = exp(-0.4), decay exp(-1/1500)."""
    rewards, gamma = config().trusted(MIXED, 0)
    assert gamma.item() == pytest.approx(math.exp(-0.4), rel=1e-12)
    factor = 0.3 * math.exp(-0.4 - 1 / 1500)
    expected = [1 + 0.2 * factor, 0.8 * factor, 1 + 0.4 * factor, 0.6 * factor]
    assert rewards[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_bonus_falls_by_one_factor_a_step_and_to_1_over_e_at_the_end() -> None:
    outcome = MIXED["accuracy"] * MIXED["answer_format"]
    bonus = [(config().trusted(MIXED, step)[0] - outcome)[0, 1] for step in (0, 1, 1499)]
    first, second, last = (value.item() for value in bonus)
    assert second / first == pytest.approx(math.exp(-1 / 1500), rel=1e-9)
    assert last == pytest.approx(0.3 * math.exp(-0.4) * 0.8 * math.exp(-1), rel=1e-9)


def test_plain_and_released_trust_every_judge_on_right_or_wrong_outcomes() -> None:
    for trust in ("plain", "released"):
        assert config(f"trust={trust}").trusted(MIXED, 0)[1].tolist() == [1]
    plain, _ = config("trust=plain", "decay_steps=12000").trusted(MIXED, 0)
    assert plain[0, 1].item() == pytest.approx(0.3 * 0.8 * math.exp(-1 / 12000), rel=1e-12)


def test_outcomes_are_a_weighted_mean_so_they_stay_in_the_unit_range() -> None:
    found = config("rewards.accuracy.weight=3", "rewards.multiple_choice.weight=1")
    shares = {name: share for name, share in found.outcome_weights().items() if share}
    assert shares == {"accuracy": 0.75, "multiple_choice": 0.25}


def test_an_answer_without_a_grade_has_no_reward_and_the_rest_are_as_if_it_were_absent() -> None:
    thinking = torch.tensor([[0.2, 0.8, NAN, 0.6]], dtype=torch.float64)
    rewards, gamma = config().trusted({**MIXED, "thinking_reward": thinking}, 0)
    kept = [0, 1, 3]
    alone = config().trusted({name: values[:, kept] for name, values in MIXED.items()}, 0)
    assert rewards[0, 2].isnan()
    torch.testing.assert_close(rewards[:, kept], alone[0])
    torch.testing.assert_close(gamma, alone[1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("thinking=judge", "thinking: expected a reward 'judge' of weight > 0"),
        ("rewards.thinking_reward.weight=0", "thinking: expected a reward 'thinking_reward'"),
        ("rewards.accuracy.weight=0", "rewards: expected an outcome: .* got {}"),
        ("rewards.accuracy.weight=-1", "rewards: expected an outcome"),
        ("mixing.kind=gdpo", r"mixing.kind: trust needs outcomes in \[0, 1\]"),
        (
            "mixing.anneal={thinking_reward: {kind: linear, start: 1, end: 0, steps: 9}}",
            r"mixing.anneal.thinking_reward: .* set decay_steps",
        ),
        ("decay_steps=0", "decay_steps: expected greater than 0"),
        ("threshold=1.5", "threshold: expected less than or equal to 1"),
        ("group_size=1", "a group of 1 has no advantage"),
    ],
)
def test_a_config_of_no_use_is_one_clear_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(override)


def test_without_its_gate_the_config_names_what_is_missing() -> None:
    rewards = {k: v for k, v in TREE["rewards"].items() if k != "answer_format"}
    with pytest.raises(ConfigError, match=r"mixing.gates.answer_format: no such reward"):
        load_config({**TREE, "rewards": rewards})
    free = load_config({**TREE, "rewards": rewards, "mixing": {}})
    assert isinstance(free, SophiaVl)
    found = {name: values for name, values in MIXED.items() if name != "answer_format"}
    assert free.trusted(found, 0)[0][0, 3] > 1


def test_the_real_config_has_the_papers_numbers() -> None:
    found = load_config(read_yaml(Path("configs/sophia_vl/qwen2_5_vl_7b.yaml")))
    assert isinstance(found, SophiaVl)
    assert (found.rewards.weights["thinking_reward"], found.decay_steps) == (0.3, None)
    assert (found.train.steps, found.group_size) == (1500, 8)


def test_gamma_of_each_group_goes_to_the_logs() -> None:
    both = {name: torch.cat([values, values.flip(1)]) for name, values in MIXED.items()}
    both["thinking_reward"][1] = 0.5
    sums = score_sums({}, torch.zeros(2, 4), config().watch(both, 0))
    metrics = score_metrics(sums)
    assert metrics["trust/gamma/mean"] == pytest.approx((math.exp(-0.4) + 1) / 2, rel=1e-6)


def test_where_all_are_right_the_advantage_divides_the_weight_out() -> None:
    """Neither alpha nor the annealing makes the judge count less in such a group."""
    right = torch.ones(1, 4, dtype=torch.float64)
    table = {**MIXED, "accuracy": right, "answer_format": right}
    small, late = "rewards.thinking_reward.weight=0.01", 1499
    found = [
        group_normalized(chosen.trusted(table, step)[0], std="sample", eps=1e-6)
        for chosen, step in ((config(), 0), (config(small), late))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=5e-3, atol=0)
    assert found[0].abs().max() > 0.5
