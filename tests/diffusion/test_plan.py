"""Which steps are stochastic and trained: every strategy by hand, and what is refused."""

from __future__ import annotations

import pytest
import torch

from mmrl.diffusion.ddim import ddim_stds
from mmrl.diffusion.plan import StepPlan, window_hold


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


def test_releases_also_draw_or_train_the_last_step() -> None:
    """Flow-GRPO decodes a noisy last latent that it does not train, SAGE-GRPO trains it."""
    noisy = StepPlan.all(4, last="noisy")
    assert noisy.stochastic == (True,) * 4
    assert noisy.trained_steps() == (0, 1, 2)
    assert StepPlan.all(4, last="trained").trained_steps() == (0, 1, 2, 3)


def test_a_random_window_is_whole_and_every_start_is_drawn_alike() -> None:
    """2 steps inside the first half of 10: four starts."""
    counts = torch.zeros(10)
    for seed in range(800):
        first, second = StepPlan.random_window(10, 2, seeded(seed), stop=5).trained_steps()
        assert second == first + 1
        counts[first] += 1
    assert counts[4:].sum() == 0
    assert counts[:4].tolist() == pytest.approx([200] * 4, abs=4 * (800 * 0.25 * 0.75) ** 0.5)


def test_a_random_window_with_one_place_to_be_is_there() -> None:
    assert StepPlan.random_window(10, 9, seeded(0)) == StepPlan.all(10)
    found = StepPlan.random_window(10, 2, seeded(0), first=3, stop=5)
    assert found.trained_steps() == (3, 4)


def starts(num_steps: int, iterations: int, **given) -> list[int]:
    plans = [StepPlan.progressive_window(num_steps, 2, i, **given) for i in range(iterations)]
    return [plan.trained_steps()[0] for plan in plans]


def test_a_progressive_window_advances_to_the_end_and_rolls_back() -> None:
    """5 steps: starts 0 .. 3, each held for 2 iterations; the last step is never in it."""
    assert starts(5, 10, stride=1, hold=2) == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0]
    assert StepPlan.progressive_window(5, 2, 6, stride=1, hold=2).trained_steps() == (3,)
    assert starts(6, 7, stride=2, hold=1) == [0, 2, 4, 0, 2, 4, 0]


def test_mixgrpos_window_of_4_in_25_steps() -> None:
    """The start moves every 25 iterations; all 24 starts take 600."""
    find = StepPlan.progressive_window
    given: dict = {"stride": 1, "hold": 25}
    assert find(25, 4, 24, **given).trained_steps() == (0, 1, 2, 3)
    assert find(25, 4, 25, **given).trained_steps() == (1, 2, 3, 4)
    assert find(25, 4, 599, **given).trained_steps() == (23,)
    assert find(25, 4, 600, **given) == find(25, 4, 0, **given)


def test_a_decaying_window_stays_less_and_less() -> None:
    """From 4 iterations at start 0 to 1 at start 3, linearly."""
    found = starts(5, 11, stride=1, hold=4, decay="decay", min_hold=1)
    assert found == [0] * 4 + [1] * 3 + [2] * 2 + [3] + [0]


def test_exponential_decay_sets_in_after_start_13() -> None:
    holds = [
        window_hold(start, 25, hold=25, decay="exp_decay", min_hold=1) for start in (0, 13, 14, 23)
    ]
    assert holds == [25, 25, 23, 10]
    found = starts(25, 600, stride=1, hold=25, decay="exp_decay")
    assert (found.count(13), found.count(14), found.count(23)) == (25, 23, 10)


def test_random_steps_of_a_list_are_drawn_from_it_alone() -> None:
    seen = {StepPlan.random_k(10, 1, seeded(s), among=[1, 2, 3]).trained_steps() for s in range(50)}
    assert seen == {(1,), (2,), (3,)}
    assert StepPlan.random_k(10, 2, seeded(0), among=(5, 7)).trained_steps() == (5, 7)


def test_a_step_of_too_little_noise_is_not_trained_but_stays_noisy() -> None:
    plan = StepPlan.all(4, last="trained")
    found = plan.with_min_std(torch.tensor([0.5, 1e-3, 9e-4, 0.0]))
    assert found.trained_steps() == (0, 1)
    assert found.stochastic == plan.stochastic
    assert StepPlan.all(4).with_min_std(torch.ones(4)) == StepPlan.all(4)


def test_ddpms_last_step_is_dropped_by_its_std() -> None:
    stds = ddim_stds(torch.tensor([0.1, 0.5, 0.9, 1.0]), eta=1.0)
    assert StepPlan.all(3, last="trained").with_min_std(stds).trained_steps() == (0, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepPlan.random_window(10, 10, seeded(0)), "window of 10 must fit into 0"),
        (lambda: StepPlan.random_window(10, 2, seeded(0), stop=10), "leave out the last of 10"),
        (lambda: StepPlan.random_window(10, 0, seeded(0)), "window of 0 must fit"),
        (lambda: StepPlan.random_k(10, 3, seeded(0), among=[1, 1, 2]), r"1 \.\. 2, got 3"),
        (lambda: StepPlan.random_k(10, 1, seeded(0), among=[]), r"count must be 1 \.\. 0"),
        (lambda: StepPlan.random_k(10, 1, seeded(0), among=[12]), r"steps must be 0 \.\. 9"),
        (lambda: StepPlan.progressive_window(9, 2, 0, stride=0, hold=1), "stride, hold and min"),
        (lambda: StepPlan.progressive_window(1, 2, 0, stride=1, hold=1), "at least 2 steps"),
        (
            lambda: StepPlan.all(3).with_min_std(torch.zeros(3)),
            "every trained step has a std below",
        ),
    ],
)
def test_impossible_strategies_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
