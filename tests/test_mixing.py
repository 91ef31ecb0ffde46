"""Scores into one reward: weights, abstentions, trust, invariance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import jaxtyping
import pytest
import torch

from mmrl.advantages import batch_normalized, group_normalized
from mmrl.config import ConfigError
from mmrl.mixing import Gate, Mixing, normalized, trust_weighted, weighted_sum
from mmrl.trust_region.controller import Scheduled

GOLDEN = Path(__file__).parent / "golden"
TRUST = json.loads((GOLDEN / "trust_weight.json").read_text())
REWARDS = json.loads((GOLDEN / "rewards.json").read_text())
SAGE = json.loads((GOLDEN / "sage_aux.json").read_text())["advantages"]["gdpo"]
ADV_GDPO = json.loads((GOLDEN / "objectives.json").read_text())["adv_gdpo"]
NAN = float("nan")


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


A, B = tensor([[1.0, 2.0, 4.0]]), tensor([[0.0, -1.0, NAN]])


def test_a_weighted_sum_is_a_weighted_sum_and_an_abstention_stays_one() -> None:
    found = weighted_sum({"a": A, "b": B}, {"a": 2.0, "b": 0.5})
    assert found[0, :2].tolist() == [2.0, 3.5]
    assert found[0, 2].isnan()


def test_a_reward_of_weight_0_never_matters() -> None:
    assert weighted_sum({"a": A, "b": B}, {"a": 1.0, "b": 0.0}).equal(A)
    assert normalized({"a": A, "b": B}, {"a": 1.0, "b": 0.0}).equal(group_normalized(A))


def test_all_weights_0_is_an_error() -> None:
    with pytest.raises(ValueError, match="every weight is 0"):
        weighted_sum({"a": A}, {"a": 0.0})


def test_a_weight_without_scores_is_named() -> None:
    with pytest.raises(ValueError, match="weights without scores: typo"):
        weighted_sum({"a": A}, {"a": 1.0, "typo": 1.0})


def test_normalized_rewards_do_not_care_for_the_scale_of_one_of_them() -> None:
    other = tensor([[3.0, 1.0, 2.0]])
    weights = {"a": 1.0, "b": 1.0}
    torch.testing.assert_close(
        normalized({"a": A, "b": other}, weights, eps=0),
        normalized({"a": 1000 * A + 5, "b": other}, weights, eps=0),
    )
    assert not weighted_sum({"a": A, "b": other}, weights).equal(
        weighted_sum({"a": 1000 * A, "b": other}, weights)
    )


def columns(case: dict) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    given = case["in"]
    rows = [tensor(values).view(-1, given["group_size"]) for values in given["rewards"]]
    names = [str(k) for k in range(len(rows))]
    return dict(zip(names, rows, strict=True)), dict(zip(names, given["weights"], strict=True))


PRESETS: list[tuple[Literal["sample", "population"], float, str, str]] = [
    ("sample", 1e-4, "trl", "trl"),
    ("sample", 1e-8, "ms_swift", "dancegrpo"),
    ("population", 1e-4, "", "flow_grpo"),
]
"""Std, eps, and whose advantage that is: per reward (GDPO) and of the weighted sum."""
SCORED = [c for c in REWARDS if c["fn"] in ("gdpo", "weighted_sum") and "nan" not in c["id"]]


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_trainers_mixtures_equal_the_reference(case: dict) -> None:
    scores, weights = columns(case)
    for std, eps, gdpo, summed in PRESETS:
        if case["fn"] == "gdpo":
            mixed = normalized(scores, weights, std=std, eps=eps)
            found, name = batch_normalized(mixed, std=std, eps=eps), gdpo
        else:
            found = group_normalized(weighted_sum(scores, weights), std=std, eps=eps)
            name = summed
        if name in case["out"]:
            expected = tensor(case["out"][name])
            torch.testing.assert_close(found.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_sage_grpos_gdpo_takes_population_stds() -> None:
    scores = {name: tensor(values) for name, values in SAGE["rewards"].items()}
    mixed = normalized(scores, SAGE["weights"], std="population", eps=1e-12)
    found = batch_normalized(mixed, std="population", eps=1e-12)
    torch.testing.assert_close(found, tensor(SAGE["advantage"]), rtol=1e-9, atol=1e-9)


def test_gdpo_of_two_columns_equals_the_reference() -> None:
    table = tensor(ADV_GDPO["inputs"]["rewards_matrix"]).T
    weights = dict(zip("ab", ADV_GDPO["hyper"]["weights"], strict=True))
    scores = {name: table[k].view(2, 4) for k, name in enumerate("ab")}
    found = batch_normalized(normalized(scores, weights))
    torch.testing.assert_close(found.flatten(), tensor(ADV_GDPO["expected"]["advantages"]))


def trust(case: dict, variant) -> tuple[torch.Tensor, torch.Tensor]:
    given = case["inputs"]
    return trust_weighted(
        tensor([given["outcome"]]),
        tensor([given["thinking"]]),
        given["step"],
        alpha=given["alpha"],
        decay_steps=given["T"],
        threshold=given["correct_threshold"],
        variant=variant,
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("case", TRUST, ids=lambda case: case["id"])
def test_trust_and_rewards_equal_the_reference(case: dict, variant) -> None:
    rewards, gamma = trust(case, variant)
    expected = case[variant]
    assert gamma.item() == pytest.approx(expected["gamma"], rel=1e-12)
    assert rewards[0].tolist() == pytest.approx(expected["reward"], rel=1e-12)
    if variant == "released":
        assert rewards[0].tolist() == pytest.approx(expected["reward_float32"], abs=1e-6)


def test_a_judge_who_likes_wrong_answers_better_is_trusted_less_by_hand() -> None:
    """Right answer thinks 0.2, wrong one 0.8: gamma = exp(-0.6); T steps later times exp(-1)."""
    outcome, thinking = tensor([[1.0, 0.0], [1.0, 0.0]]), tensor([[0.2, 0.8], [0.8, 0.2]])
    rewards, gamma = trust_weighted(outcome, thinking, 1500, decay_steps=1500)
    assert gamma.tolist() == pytest.approx([math.exp(-0.6), 1])
    share, doubt = 0.3 * math.exp(-1), math.exp(-0.6)
    assert rewards[0].tolist() == pytest.approx([1 + share * doubt * 0.2, share * doubt * 0.8])
    assert rewards[1].tolist() == pytest.approx([1 + share * 0.8, share * 0.2])


def test_trust_ignores_order_copies_and_a_shift_of_every_thought() -> None:
    generator = torch.Generator().manual_seed(0)
    outcome, thinking = 0.5 * torch.rand((2, 20, 6), generator=generator, dtype=torch.float64)
    outcome[:, 0], outcome[:, 1] = 0.9, 0.1
    given = {"decay_steps": 10, "alpha": 0.3}
    _, gamma = trust_weighted(outcome, thinking, 3, **given)
    order = [4, 2, 0, 5, 1, 3]
    for other in (
        (outcome[:, order], thinking[:, order]),
        (outcome.repeat(1, 3), thinking.repeat(1, 3)),
        (outcome, thinking + 0.4),
    ):
        torch.testing.assert_close(trust_weighted(*other, 3, **given)[1], gamma)
    assert ((gamma >= math.exp(-1)) & (gamma <= 1)).all()
    assert (gamma < 1).any() and (gamma == 1).any()


def test_trust_rises_with_the_thoughts_of_right_answers_and_falls_with_those_of_wrong_ones() -> (
    None
):
    outcome = tensor([[1.0, 1.0, 0.0]] * 4)
    thinking = tensor([[0.2, 0.3, 0.8], [0.2, 0.5, 0.8], [0.2, 0.3, 0.6], [0.2, 0.3, 1.0]])
    _, gamma = trust_weighted(outcome, thinking, 0, decay_steps=10)
    start, right, less_wrong, more_wrong = gamma.tolist()
    assert more_wrong < start < right
    assert start < less_wrong


def test_a_bonus_is_bounded_and_gone_without_weight_or_thought() -> None:
    outcome, thinking = tensor([[1.0, 0.0, 1.0]]), tensor([[0.1, 0.9, 0.4]])
    rewards, gamma = trust_weighted(outcome, thinking, 5, decay_steps=10)
    bonus = rewards - outcome
    assert ((bonus >= 0) & (bonus <= 0.3 * math.exp(-0.5) * gamma)).all()
    assert trust_weighted(outcome, thinking, 5, alpha=0.0, decay_steps=10)[0].equal(outcome)
    assert trust_weighted(outcome, 0 * thinking, 5, decay_steps=10)[0].equal(outcome)


def test_released_trust_is_inert_on_answers_that_are_right_or_wrong() -> None:
    outcome, thinking = tensor([[1.0, 0.0], [1.0, 1.0]]), tensor([[0.0, 1.0], [0.5, 0.7]])
    rewards, gamma = trust_weighted(outcome, thinking, 0, decay_steps=10, variant="released")
    assert gamma.tolist() == [1, 0]
    assert rewards.equal(outcome)
    assert trust_weighted(outcome, thinking, 0, decay_steps=10)[1][0] < 1


def test_an_unjudged_answer_has_no_reward_and_leaves_the_others_as_if_absent() -> None:
    outcome, thinking = tensor([[1.0, 0.0, 1.0, 0.0]]), tensor([[0.2, 0.8, NAN, 0.6]])
    rewards, gamma = trust_weighted(outcome, thinking, 0, decay_steps=10)
    kept = [0, 1, 3]
    alone = trust_weighted(outcome[:, kept], thinking[:, kept], 0, decay_steps=10)
    assert rewards[0, 2].isnan()
    torch.testing.assert_close(rewards[:, kept], alone[0])
    torch.testing.assert_close(gamma, alone[1])
    silent, _ = trust_weighted(outcome, thinking, 0, alpha=0.0, decay_steps=10)
    assert silent.equal(outcome)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thinking": tensor([[0.2, 4.0]])}, r"thinking must lie in \[0, 1\], got 0.2 .. 4"),
        ({"outcome": tensor([[-1.0, 0.0]])}, "outcome must lie in"),
        ({"decay_steps": 0}, "decay_steps > 0"),
        ({"step": -1}, "step >= 0"),
        ({"alpha": -0.1}, "alpha >= 0"),
        ({"threshold": 1.5}, "threshold <= 1"),
    ],
)
def test_trust_names_what_it_cannot_use(change: dict, message: str) -> None:
    given: dict[str, Any] = {
        "outcome": tensor([[1.0, 0.0]]),
        "thinking": tensor([[0.2, 0.8]]),
        "step": 0,
    }
    given |= {"decay_steps": 10} | change
    with pytest.raises(ValueError, match=message):
        trust_weighted(**given)


@pytest.mark.parametrize(
    ("outcome", "thinking", "message"),
    [
        ((2, 4), (1, 4), r"both be \(P, G\), .*, got \(2, 4\) and \(1, 4\)"),
        ((2, 4), (2, 1), r"got \(2, 4\) and \(2, 1\)"),
        ((4,), (4,), r"got \(4,\) and \(4,\)"),
        ((2, 0), (2, 0), r"a group holds no answer: outcome is \(2, 0\)"),
    ],
)
def test_trust_needs_a_grade_for_every_answer(
    outcome: tuple[int, ...],
    thinking: tuple[int, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a run, where no shape is checked by its annotation and torch would broadcast."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        trust_weighted(torch.zeros(outcome), torch.zeros(thinking), 0, decay_steps=10)


def test_in_a_sum_a_reward_of_large_scale_decides_the_advantage_alone() -> None:
    """Weighted and added first, normalized after: a wide reward drowns a narrow one."""
    wide, narrow = tensor([[0.0, 100.0, 200.0, 300.0]]), tensor([[1.0, 0.0, 0.0, 0.0]])
    weights = {"wide": 1.0, "narrow": 1.0}
    added = group_normalized(weighted_sum({"wide": wide, "narrow": narrow}, weights))
    torch.testing.assert_close(added, group_normalized(wide), atol=0.02, rtol=0)
    apart = normalized({"wide": wide, "narrow": narrow}, weights)
    assert (group_normalized(apart) - group_normalized(wide)).abs().max() > 0.5


def test_a_gate_overrules_the_sum_and_a_gate_without_a_score_leaves_no_reward() -> None:
    mixing = Mixing(gates={"b": Gate(below=0, reward=-1.0)})
    found = mixing.combine({"a": A, "b": B}, {"a": 1.0, "b": 0.0}, 0)
    assert found[0, :2].tolist() == [1.0, -1.0] and found[0, 2].isnan()
    with pytest.raises(ValueError, match="either 'below' or 'above'"):
        Gate(below=0, above=1)


def test_an_annealed_weight_follows_its_schedule() -> None:
    mixing = Mixing(anneal={"b": Scheduled(kind="linear", start=1.0, end=0.0, steps=10)})
    scores = {"a": torch.zeros(1, 2), "b": torch.ones(1, 2)}
    weights = {"a": 1.0, "b": 2.0}
    found = [mixing.combine(scores, weights, step)[0, 0].item() for step in (0, 5, 10, 99)]
    assert found == [2.0, 1.0, 0.0, 0.0]


def test_gdpo_by_its_section_is_gdpo_by_hand_and_a_sum_for_groups_of_one() -> None:
    torch.manual_seed(0)
    scores = {"a": torch.randn(3, 4), "b": 100 * torch.randn(3, 4)}
    weights, mixing = {"a": 1.0, "b": 0.5}, Mixing(kind="gdpo")
    found = mixing.advantage(mixing.combine(scores, weights, 0), group_normalized)
    assert found.equal(batch_normalized(normalized(scores, weights)))
    alone = {name: table.reshape(-1, 1) for name, table in scores.items()}
    assert mixing.combine(alone, weights, 0).equal(weighted_sum(alone, weights))


def test_a_mixing_section_that_does_not_fit_is_named() -> None:
    fading = Scheduled(kind="linear", start=1.0, end=0.0, steps=10)
    with pytest.raises(ConfigError, match=r"gates\.c: no such reward \(known: a\)"):
        Mixing(gates={"c": Gate(above=1)}).check({"a": 1.0})
    with pytest.raises(ConfigError, match="annealed to 0"):
        Mixing(anneal={"a": fading}).check({"a": 1.0, "b": 0.0})
