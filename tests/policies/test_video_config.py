"""Which steps of a rollout are trained, and sampling sections that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmrl.config import ConfigError, parse
from mmrl.diffusion.plan import window_hold
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.models.pipeline import load_video_model
from mmrl.policies.video_config import (
    GridConfig,
    SamplingConfig,
    VideoConfig,
    build_video_policy,
)
from mmrl.policies.video_model import VideoModel
from mmrl.types import Turn
from tests.models.tiny_pipelines import FAMILIES, save
from tests.toy_video import PROMPTS, toy_policy

TINY_WAN = "assets/tiny-wan"
VIDEO = VideoConfig(num_frames=5, height=16, width=16, max_sequence_length=8)


def loaded(path: str = TINY_WAN, video: VideoConfig = VIDEO) -> VideoModel:
    return load_video_model(path, video.size(), dtype=torch.float32)


def sampling(**fields: Any) -> SamplingConfig:
    return parse(SamplingConfig, {"transition": "flow", "num_steps": 10, "eta": 0.7, **fields})


def trained(config: SamplingConfig, step: int = 0, seed: int = 0) -> tuple[int, ...]:
    return config.plan(Turn(step, seed)).trained_steps()


def test_all_trains_every_step_but_the_last() -> None:
    assert trained(sampling()) == tuple(range(9))


@pytest.mark.parametrize(
    ("last_step", "count", "noise"),
    [("deterministic", 9, False), ("noisy", 9, True), ("trained", 10, True)],
)
def test_the_last_step_is_quiet_noisy_or_trained(last_step: str, count: int, noise: bool) -> None:
    plan = sampling(last_step=last_step).plan(Turn(0, 0))
    assert len(plan.trained_steps()) == count
    assert plan.stochastic == (True,) * 9 + (noise,)


def test_window_trains_the_same_steps_every_time() -> None:
    config = sampling(trained_steps="window", trained_count=3, window_start=2)
    assert {trained(config, step, 7 * step) for step in range(20)} == {(2, 3, 4)}


def test_random_trains_so_many_steps_and_in_time_all_but_the_last() -> None:
    config = sampling(trained_steps="random", trained_count=4)
    drawn = [trained(config, seed=seed) for seed in range(60)]
    assert all(len(set(steps)) == 4 for steps in drawn)
    assert {step for steps in drawn for step in steps} == set(range(9))


def test_random_window_trains_neighbours_inside_its_range() -> None:
    config = sampling(trained_steps="random_window", trained_count=2, window_start=1, window_stop=5)
    drawn = {trained(config, seed=seed) for seed in range(60)}
    assert drawn == {(1, 2), (2, 3), (3, 4)}


def test_progressive_moves_on_by_one_step_after_its_hold() -> None:
    config = sampling(trained_steps="progressive", trained_count=3, window_hold=2)
    drawn = [trained(config, step, seed=step) for step in range(6)]
    assert drawn == [(0, 1, 2)] * 2 + [(1, 2, 3)] * 2 + [(2, 3, 4)] * 2


@pytest.mark.parametrize("kind", ["random", "random_window"])
def test_ranks_with_seeds_of_their_own_train_the_same_steps_of_one_turn(kind: str) -> None:
    config = sampling(trained_steps=kind, trained_count=2, num_steps=8)
    policy = toy_policy(num_steps=8, plan=config.plan)
    found = set()
    for number in range(12):
        turn = Turn(number, 1000 + number)
        one = policy.rollout(PROMPTS[:1], 2, [5], turn).replay.steps
        other = policy.rollout(PROMPTS[1:], 2, [6 + number], turn).replay.steps
        assert one == other
        found.add(one)
    assert len(found) > 1


def test_a_plan_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    sampling(trained_steps="random", trained_count=2).plan(Turn(3, 4))
    assert torch.equal(before, torch.get_rng_state())


MISTAKES = {
    "nothing random": ({"transition": "ode"}, "transition: every step is deterministic"),
    "no noise": ({"eta": 0.0}, "transition: every step is deterministic"),
    "no count": ({"trained_steps": "random"}, "trained_count: trained_steps 'random' needs a"),
    "too many": (
        {"trained_steps": "random", "trained_count": 10},
        r"trained_steps: count must be 1 \.\. 9, got 10",
    ),
    "window behind the end": (
        {"trained_steps": "window", "trained_count": 2, "window_start": 9},
        "trained_steps: no stochastic step to train among 10",
    ),
    "window too wide": (
        {"trained_steps": "random_window", "trained_count": 4, "window_stop": 3},
        r"trained_steps: a window of 4 must fit into 0 \.\. 3",
    ),
    "last step of a part": (
        {"trained_steps": "random", "trained_count": 2, "last_step": "noisy"},
        "last_step: goes with trained_steps: all",
    ),
    "last step without noise": (
        {"transition": "bridge", "last_step": "trained"},
        "last_step: 'bridge' draws no noise at the last step",
    ),
    "angle": ({"transition": "cps", "eta": 1.2}, "eta: a share of a right angle in cps, got 1.2"),
    "more than ancestral": (
        {"transition": "ddim", "shift": None, "eta": 2.0},
        r"eta: 0 \.\. 1 in ddim, 1 being ancestral sampling, got 2",
    ),
    "a variance below 0": (
        {"transition": "sage", "variant": "released", "num_steps": 70},
        r"variant: the released SAGE variance is negative .* use fewer steps or variant 'fixed'$",
    ),
    "an infinite variance": (
        {"transition": "sage", "variant": "paper"},
        "variant: the paper's SAGE variance is infinite at sigma 1",
    ),
    "an infinite variance by draw": (
        {"transition": "sage", "variant": "paper", "trained_steps": "random", "trained_count": 1},
        "variant: the paper's SAGE variance is infinite at sigma 1",
    ),
    "a count that nothing reads": (
        {"trained_count": 4},
        "trained_count: trained_steps 'all' does not read it; leave it out, or choose "
        "trained_steps: random or window or random_window or progressive$",
    ),
    "a start of no window": (
        {"trained_steps": "random", "trained_count": 2, "window_start": 1},
        "window_start: trained_steps 'random' does not read it",
    ),
    "a stop of a window that stands still": (
        {"trained_steps": "window", "trained_count": 2, "window_stop": 5},
        "window_stop: trained_steps 'window' does not read it",
    ),
    "a hold of no moving window": (
        {"trained_steps": "random_window", "trained_count": 2, "window_hold": 3},
        "window_hold: trained_steps 'random_window' does not read it",
    ),
    "a decay of no moving window": ({"window_decay": "decay"}, "window_decay: trained_steps 'all'"),
    "endless noise": ({"eta": float("inf")}, "eta: expected a finite number, got inf"),
    "endless shift": ({"shift": float("inf")}, "shift: expected a finite number, got inf"),
    "endless guidance": ({"guidance": float("inf")}, "guidance: expected a finite number"),
    "a solver without its grid": (
        {"transition": "ddim", "shift": None, "eta": 1.0, "solver": "unipc"},
        "solver: unipc needs a shift$",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_section_that_trains_nothing_is_one_clear_error(name: str) -> None:
    fields, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=f"^{message}"):
        sampling(**fields)


def test_a_step_without_noise_needs_no_finite_variance() -> None:
    """The paper's first step, and the released one at 70 steps, when they are the ODE's."""
    window: dict[str, Any] = {"trained_steps": "window", "trained_count": 2, "window_start": 40}
    for variant in ("paper", "released"):
        config = sampling(transition="sage", variant=variant, num_steps=70, **window)
        stds = config.stds(shifted_sigmas(70, 5.0))
        assert (stds > 0).nonzero().flatten().tolist() == [40, 41]


def test_a_grid_of_the_models_own_is_checked_when_the_model_is_there() -> None:
    config = sampling(transition="sage", variant="paper", num_steps=4, shift=None)
    with pytest.raises(ConfigError, match=r"^sampling\.variant: the paper's SAGE variance is inf"):
        build_video_policy(loaded(), config, fps=8.0, rows=2)


def test_a_resolved_config_reads_itself_again() -> None:
    """Keys that the strategy does not read have their defaults there."""
    config = sampling(trained_steps="window", trained_count=2)
    assert parse(SamplingConfig, config.model_dump(mode="json")) == config


def test_the_hold_of_a_moving_window_falls_as_its_decay_says() -> None:
    held = {"trained_steps": "progressive", "trained_count": 2, "window_hold": 9}
    constant, falling = sampling(**held), sampling(**held, window_decay="decay")
    count = {c: [trained(c, step)[0] for step in range(30)].count(1) for c in (constant, falling)}
    assert count[constant] == 9
    assert count[falling] == window_hold(1, 10, hold=9, decay="decay", min_hold=1) == 8


@pytest.mark.parametrize("kind", ["flow", "dance", "sage"])
def test_the_last_step_of_the_euler_family_has_a_likelihood(kind: str) -> None:
    plan = sampling(transition=kind, num_steps=4, last_step="trained").plan
    rollout = toy_policy(plan=plan).rollout(PROMPTS, 2, [1, 2])
    assert rollout.replay.steps == (0, 1, 2, 3)
    assert torch.isfinite(rollout.behavior["denoise"].log_probs).all()


def test_ddim_on_a_flow_model_is_refused_with_what_fits() -> None:
    message = (
        r"^sampling\.transition: 'ddim' does not fit a model that predicts velocity; "
        "choose sage, flow, dance, cps or bridge$"
    )
    with pytest.raises(ConfigError, match=message):
        build_video_policy(loaded(), sampling(transition="ddim"), fps=8.0, rows=2)


@pytest.fixture(scope="module")
def v_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(FAMILIES["cogvideox"], tmp_path_factory.mktemp("cogvideox")))


def test_sage_on_a_model_that_predicts_v_is_refused_with_what_fits(v_model: str) -> None:
    message = (
        r"^sampling\.transition: 'sage' does not fit a model that predicts v_prediction; "
        "choose ddim$"
    )
    with pytest.raises(ConfigError, match=message):
        build_video_policy(loaded(v_model), sampling(transition="sage"), fps=8.0, rows=2)


def test_ddim_fits_a_model_that_predicts_v(v_model: str) -> None:
    section = sampling(transition="ddim", num_steps=4, eta=1.0, shift=None)
    video = VideoConfig(num_frames=9, height=16, width=32, max_sequence_length=8)
    policy = build_video_policy(loaded(v_model, video), section, fps=8.0, rows=2)
    rollout = policy.rollout(PROMPTS[:1], 2, [3])
    assert rollout.replay.steps == (0, 1, 2)
    assert rollout.behavior["denoise"].scale.min() > 0


def test_a_grid_without_noise_has_nothing_to_roll_out() -> None:
    policy = build_video_policy(loaded(), GridConfig(num_steps=3), fps=8.0, rows=2)
    with pytest.raises(ValueError, match="has no step to train"):
        policy.rollout(PROMPTS, 2, [1, 2])
