"""Step scales of a run: which steps they are measured on, for every kind of model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrl.config import parse
from mmrl.diffusion.ddim import ddim_stds
from mmrl.diffusion.equalizer import ddim_equalizer_scales, equalizer_scales
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import step_stds
from mmrl.policies.step_scales import step_scales
from mmrl.policies.video_config import SamplingConfig
from mmrl.train.loop import load_config
from mmrl.types import Turn
from tests.models.tiny_pipelines import FAMILIES, save
from tests.tiny import shrunk_config
from tests.toy_video import PROMPTS, toy_policy

LEVELS = shifted_sigmas(10, 3.0)
STRATEGIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "all": ({}, tuple(range(9))),
    "all, the last too": ({"last_step": "trained"}, tuple(range(10))),
    "window": ({"trained_count": 3, "window_start": 2}, (2, 3, 4)),
    "random": ({"trained_count": 1}, tuple(range(9))),
    "random_window": ({"trained_count": 2, "window_start": 1, "window_stop": 5}, (1, 2, 3, 4)),
    "progressive": ({"trained_count": 2, "window_hold": 1}, tuple(range(9))),
}


def sampling(strategy: str = "all", **fields: Any) -> SamplingConfig:
    given = {"transition": "sage", "num_steps": 10, "eta": 0.5, "shift": 3.0, **fields}
    return parse(SamplingConfig, {**given, "trained_steps": strategy.partition(",")[0]})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_steps_that_a_run_can_train_are_those_that_its_rollouts_train(strategy: str) -> None:
    fields, expected = STRATEGIES[strategy]
    config = sampling(strategy, **fields)
    assert config.trainable_steps() == expected
    trained = {s for step in range(90) for s in config.plan(Turn(step, step)).trained_steps()}
    assert trained == set(expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_equalizers_median_is_that_of_the_steps_a_run_can_train(strategy: str) -> None:
    """The median step has the scale 1; a draw of one step keeps its own, and is not always 1."""
    fields, steps = STRATEGIES[strategy]
    config = sampling(strategy, **fields)
    found = step_scales(LEVELS, weighting="sage", sampling=config, output="velocity")
    assert torch.equal(found, equalizer_scales("sage", LEVELS, eta=0.5, steps=steps))
    chosen = found[list(steps)].sort(descending=True).values
    assert chosen[(len(steps) - 1) // 2] == 1.0
    plan, scales = config.plan, lambda levels: found
    policy = toy_policy(num_steps=10, plan=plan, scales=scales)
    rollout = policy.rollout(PROMPTS, 2, [1, 2], Turn(3, 3))
    drawn = list(rollout.replay.steps)
    torch.testing.assert_close(rollout.scales["denoise"], found[drawn].float())


def test_tempflow_weighs_a_step_by_its_noise_with_a_mean_of_1() -> None:
    config = sampling("window", trained_count=3, window_start=2)
    found = step_scales(LEVELS, weighting="tempflow", sampling=config, output="velocity")
    stds = step_stds("sage", LEVELS, eta=0.5)[2:5]
    torch.testing.assert_close(found[2:5], stds / stds.mean())


def test_ddim_has_the_same_two_weightings() -> None:
    config = sampling("window", transition="ddim", shift=None, trained_count=2, window_start=1)
    levels = torch.linspace(0.01, 1, 11, dtype=torch.float64)
    of = partial(step_scales, levels, sampling=config, output="v_prediction")
    torch.testing.assert_close(
        of(weighting="sage"),
        ddim_equalizer_scales(levels, eta=0.5, prediction="v_prediction", steps=(1, 2)),
    )
    stds = ddim_stds(levels, eta=0.5)[1:3]
    torch.testing.assert_close(of(weighting="tempflow")[1:3], stds / stds.mean())


def test_sage_equalizes_a_model_that_predicts_v(tmp_path: Path) -> None:
    folder = save(FAMILIES["cogvideox"], tmp_path / "model")
    changes = [
        f"model={folder}",
        "lora=null",
        *("video.num_frames=9", "video.height=16", "video.width=32"),
        *("sampling.transition=ddim", "sampling.eta=1", "sampling.shift=null"),
        *("sampling.trained_steps=all", "sampling.trained_count=null"),
    ]
    policy = load_config(shrunk_config("sage_grpo", tmp_path, *changes)).build().policy
    scales = policy.rollout(PROMPTS[:1], 2, [3]).scales["denoise"]
    levels = policy.schedule(4).levels
    expected = ddim_equalizer_scales(levels, eta=1.0, prediction="v_prediction", steps=range(3))
    torch.testing.assert_close(scales, expected[:3].float())
    assert scales.max() > 1.1 * scales.min()


def test_a_rollout_of_flow_grpo_has_the_weights_that_its_config_names(tmp_path: Path) -> None:
    def scales(*changes: str):
        config = load_config(shrunk_config("flow_grpo", tmp_path, *changes))
        return config.build().policy.rollout(PROMPTS, 2, [1, 2]).scales

    assert scales() == {}
    window = ["sampling.trained_steps=window", "timestep_weighting=tempflow"]
    stds = step_stds("flow", shifted_sigmas(4, 3.0), eta=0.7)[:2]
    torch.testing.assert_close(scales(*window)["denoise"], (stds / stds.mean()).float())
