"""Which steps are stochastic and trained: every strategy by hand, and what is refused."""

from __future__ import annotations

import pytest
import torch

from mmrl.diffusion.plan import StepPlan


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_steps_but_the_last_are_stochastic_and_trained() -> None:
    plan = StepPlan.all(4)
    assert plan.stochastic == plan.trained == (True, True, True, False)
    assert plan.trained_steps() == (0, 1, 2)


def test_a_window_is_cut_before_the_last_step() -> None:
    assert StepPlan.window(10, 2, 3).trained_steps() == (2, 3, 4)
    assert StepPlan.window(10, 7, 4).trained_steps() == (7, 8)
    assert StepPlan.window(10, 2, 3).stochastic == StepPlan.window(10, 2, 3).trained


def test_random_steps_follow_the_generator_and_are_all_drawn_alike() -> None:
    assert StepPlan.random_k(9, 3, seeded(4)) == StepPlan.random_k(9, 3, seeded(4))
    counts = torch.zeros(9)
    for seed in range(800):
        steps = StepPlan.random_k(9, 3, seeded(seed)).trained_steps()
        assert len(set(steps)) == 3
        counts[list(steps)] += 1
    assert counts[8] == 0
    assert counts[:8].tolist() == pytest.approx([300] * 8, abs=4 * (800 * 3 / 8 * 5 / 8) ** 0.5)


def test_a_deterministic_plan_trains_nothing() -> None:
    assert StepPlan.deterministic(3).trained_steps() == ()
    assert not any(StepPlan.deterministic(3).stochastic)


@pytest.mark.parametrize(
    "make",
    [lambda: StepPlan.window(10, 9, 2), lambda: StepPlan.all(1), lambda: StepPlan.of(5, [])],
)
def test_a_plan_with_nothing_to_train_names_the_cure(make) -> None:
    with pytest.raises(ValueError, match="a ratio needs noise; choose more steps or an earlier"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepPlan.of(5, [7]), r"steps must be 0 \.\. 4, got \[7\]"),
        (lambda: StepPlan.window(10, -1, 2), "start >= 0"),
        (lambda: StepPlan.random_k(5, 5, seeded(0)), r"count must be 1 \.\. 4, got 5"),
        (lambda: StepPlan((False, True), (True, True)), "deterministic step has no likelihood"),
    ],
)
def test_impossible_plans_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
