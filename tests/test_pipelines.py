"""Every pipeline's tiny config, made tiny, runs a step from its config to its saved model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mmrl.config import ConfigError, read_yaml
from mmrl.recipe import pipelines
from mmrl.train.loop import load_config, start
from tests.tiny import shrunk_config


def trained_weights(folder: Path) -> dict:
    """Of the denoiser in a pipeline's folder, or of the language model."""
    found = sorted((folder / "transformer").glob("*.safetensors"))
    return load_file((found or sorted(folder.glob("*.safetensors")))[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", pipelines.names())
def test_a_pipeline_runs_a_step_and_saves_what_it_learned(name: str, tmp_path: Path) -> None:
    config = load_config(shrunk_config(name, tmp_path))
    done = start(config)
    assert (done.step, done.stopped) == (1, False)
    [row] = map(json.loads, (done.run / "metrics.jsonl").read_text("utf-8").splitlines())
    assert row["skipped_update"] == 0.0
    assert row["ratio/deviation"] == 0.0 or config.train.updates_per_rollout > 1
    learned = row["grad_norm"] > 0
    assert learned or row["frac_reward_zero_std"] == 1.0
    before, after = (trained_weights(Path(path)) for path in (config.model, done.run / "model"))
    assert before.keys() == after.keys()
    assert learned == any(not before[key].equal(after[key]) for key in before)


@pytest.mark.parametrize("advantage", ["centered", "leave_one_out"])
def test_gdpo_replaces_no_other_advantage_of_grpo(advantage: str) -> None:
    tree = read_yaml(Path("configs/grpo/tiny.yaml"))
    tree |= {"mixing": {"kind": "gdpo"}, "advantage": advantage}
    with pytest.raises(ConfigError, match="advantage: gdpo normalizes by group"):
        load_config(tree)
