"""Coefficients: goldens of the controllers, the sign of their answer, what they ignore."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from mmrl.config import Config, ConfigError, parse
from mmrl.trust_region.controller import (
    Coefficient,
    ControllerState,
    DualAscent,
    Proportional,
    Scheduled,
    current,
    initial_state,
    observe,
    scheduled_value,
)

GOLDENS = Path(__file__).parent.parent / "golden"
GOLDEN = json.loads((GOLDENS / "controllers.json").read_text())
RELEASED = json.loads((GOLDENS / "sage_aux.json").read_text())["adaptive_kl_as_observed"]


def numbers(values: list[float | str]) -> list[float]:
    return [float(value) for value in values]


@pytest.mark.parametrize("case", ["ctl_proportional", "ctl_skips_nonfinite"])
def test_proportional_controller_follows_the_reference_trace(case: str) -> None:
    found, hyper = GOLDEN[case], GOLDEN[case]["hyper"]
    rule = Proportional(
        kind="proportional",
        initial=hyper["init"],
        target=hyper["target"],
        horizon=hyper["horizon"],
        limit=hyper["clip"],
    )
    state = initial_state(rule)
    for kl, n, expected in zip(
        numbers(found["inputs"]["kl"]), found["inputs"]["n"], found["expected"]["coef"], strict=True
    ):
        state = observe(rule, state, kl=kl, count=n)
        assert state.value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: case["name"])
def test_the_released_rule_follows_the_observed_trace(case: dict) -> None:
    """More KL than the target lowers the coefficient: the sign of SAGE-GRPO's release."""
    hyper, traced = case["params"], {}
    assert hyper["init"] == hyper["min"]
    names = {"target": "target_kl", "minimum": "min", "maximum": "max", "horizon": "horizon"}
    tree = {"kind": "sage_release", **{k: hyper[v] for k, v in names.items()}}
    rule = parse(Holder, {"coefficient": tree}).coefficient
    state = initial_state(rule)
    assert state.value == hyper["init"]
    for kl in (kl for kl, length in case["kl_runs"] for _ in range(length)):
        state = observe(rule, state, kl=kl, count=1)
        state = ControllerState(**json.loads(json.dumps(asdict(state))))  # as a checkpoint has it
        traced[str(state.observed)] = current(rule, state, updates=0)
    assert {n: traced[n] for n in case["coef_at"]} == pytest.approx(case["coef_at"], rel=1e-12)


def test_dual_ascent_follows_the_reference_trace() -> None:
    found, hyper = GOLDEN["ctl_dual_ascent"], GOLDEN["ctl_dual_ascent"]["hyper"]
    rule = DualAscent(
        kind="dual_ascent",
        initial=hyper["init"],
        target=hyper["target"],
        rate=hyper["lr"],
        maximum=hyper["max"],
    )
    state = initial_state(rule)
    for kl, expected in zip(found["inputs"]["kl"], found["expected"]["coef"], strict=True):
        state = observe(rule, state, kl=kl, count=1)
        assert state.value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine", "geometric"])
def test_schedules_follow_the_reference_values(kind: str) -> None:
    found, hyper = GOLDEN["budget_schedules"], GOLDEN["budget_schedules"]["hyper"]
    schedule = parse(
        Scheduled,
        {"kind": kind, "start": hyper["start"], "end": hyper["end"], "steps": hyper["steps"]},
    )
    values = [scheduled_value(schedule, step) for step in found["inputs"]["t"]]
    assert values == pytest.approx(found["expected"][kind], abs=1e-12)


@pytest.mark.parametrize("target", [0.01, 0.1, 1.0])
def test_more_kl_than_the_target_raises_the_coefficient_and_less_lowers_it(target: float) -> None:
    rule = Proportional(kind="proportional", initial=0.1, target=target, horizon=100)
    state = initial_state(rule)
    assert observe(rule, state, kl=2 * target, count=10).value > 0.1
    assert observe(rule, state, kl=target / 2, count=10).value < 0.1
    assert observe(rule, state, kl=target, count=10).value == 0.1


def test_a_negative_estimate_counts_as_zero() -> None:
    rule = Proportional(kind="proportional", initial=0.1, target=0.1, horizon=100)
    zero = observe(rule, initial_state(rule), kl=0.0, count=10)
    assert observe(rule, initial_state(rule), kl=-3.0, count=10) == zero


def test_a_step_without_samples_is_no_observation() -> None:
    rule = Proportional(kind="proportional", initial=0.1, target=0.1, horizon=100)
    assert observe(rule, initial_state(rule), kl=9.0, count=0) == initial_state(rule)


def test_three_kls_in_a_row_that_are_not_finite_stop_the_run() -> None:
    rule = Proportional(kind="proportional", initial=0.1, target=0.1, horizon=100)
    state = initial_state(rule)
    state = observe(rule, state, kl=math.nan, count=1)
    state = observe(rule, state, kl=math.inf, count=1)
    assert state == ControllerState(0.1, skipped=2)
    assert observe(rule, state, kl=0.1, count=1).skipped == 0
    with pytest.raises(FloatingPointError, match="3 updates in a row"):
        observe(rule, state, kl=math.nan, count=1)


def test_the_coefficient_in_force_is_read_before_it_is_updated() -> None:
    """The reference trace of a fixed, a moving and a previous-step anchor side by side."""
    found, hyper = GOLDEN["dual_anchor_trace"], GOLDEN["dual_anchor_trace"]["hyper"]["moving"]
    rule = Proportional(
        kind="proportional",
        initial=hyper["coef0"],
        target=hyper["target"],
        horizon=hyper["horizon"],
        limit=hyper["clip"],
    )
    state = initial_state(rule)
    count = found["inputs"]["n_per_step"]
    for kls, row in zip(found["inputs"]["kl"], found["expected"]["trace"], strict=True):
        coefficient = current(rule, state, updates=row["step"] - 1)
        assert coefficient == pytest.approx(row["coef_moving"], abs=1e-12)
        penalty = 0.02 * kls["fixed"] + coefficient * kls["moving"] + 0.01 * kls["previous"]
        assert penalty == pytest.approx(row["penalty"], abs=1e-12)
        state = observe(rule, state, kl=kls["moving"], count=count)
    assert state.value == pytest.approx(found["expected"]["coef_moving_final"], abs=1e-12)


class Holder(Config):
    coefficient: Coefficient


def test_a_config_coefficient_is_a_number_or_a_section_with_a_kind() -> None:
    assert parse(Holder, {"coefficient": 0.1}).coefficient == 0.1
    section = {"kind": "linear", "start": 0.1, "end": 0.0, "steps": 5}
    assert isinstance(parse(Holder, {"coefficient": section}).coefficient, Scheduled)
    with pytest.raises(ConfigError, match=r"coefficient: expected a number, or a section"):
        parse(Holder, {"coefficient": {"kind": "linaer"}})
    with pytest.raises(ConfigError, match=r"coefficient.*horizo.*did you mean 'horizon'"):
        rule = {"kind": "proportional", "initial": 1, "target": 1, "horizo": 1}
        parse(Holder, {"coefficient": rule})
