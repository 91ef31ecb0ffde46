"""The alarm on reward hacking: when it goes off, and each thing it can do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmrl.config import ConfigError
from mmrl.recipe import Alarm
from mmrl.train.alarm import RewardHackingError, change, parted
from mmrl.train.checkpoint import load_checkpoint, newest_sound, save_checkpoint
from mmrl.train.loop import initial_state, load_config, resume, start
from mmrl.train.state import AlarmState
from tests.tiny import video_config

REWARDS = '''
"""A reward that rises by itself with every call, and one that falls as it does."""
from mmrl.reward import RewardConfig
import torch
CALLS = {"up": 0, "down": 0}

class Up(RewardConfig):
    def __call__(self, samples):
        CALLS["up"] += 1
        return CALLS["up"] + torch.arange(len(samples)) % 2

class Down(RewardConfig):
    def __call__(self, samples):
        CALLS["down"] += 1
        return -CALLS["down"] + 0.1 * (torch.arange(len(samples)) % 2)
'''


def config(folder: Path, steps: int, **alarm: Any) -> dict[str, Any]:
    tree = video_config(folder / "run", steps, alarm={"window": 2, **alarm})
    file = folder / "rewards.py"
    file.write_text(REWARDS, encoding="utf-8")
    tree["rewards"] = {
        "up": {"path": f"{file}:Up", "weight": 1.0},
        "down": {"path": f"{file}:Down", "weight": 0.0},
    }
    tree["trust_region"]["periodic"]["refresh_every"] = 100
    return tree


def lines(folder: Path) -> list[dict[str, float]]:
    text = (folder / "run/metrics.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_change_is_measured_in_standard_errors_by_hand() -> None:
    assert change([1.0, 3.0, 5.0, 7.0], 2) == pytest.approx(4 / math.sqrt((2 + 2) / 2))
    assert change([1.0, 2.0, 3.0], 2) == 0.0
    assert change([1.0, 1.0, 2.0, 2.0], 2) == math.inf
    assert change([1.0, math.nan, 2.0, 2.0], 2) == 0.0


def test_noise_alone_rarely_parts_two_rewards() -> None:
    generator, alarm, rang = torch.Generator().manual_seed(0), Alarm(window=10), 0
    for _ in range(500):
        values = torch.randn(2, 20, generator=generator).tolist()
        state = AlarmState({"a": values[0], "b": values[1]})
        rang += bool(parted(alarm, state, {"a": 1.0, "b": 0.0}))
    assert rang / 500 < 0.01


def test_a_penalty_improves_downward() -> None:
    state = AlarmState({"a": [4.0, 3.0, 2.0, 1.0], "b": [4.0, 3.0, 2.0, 1.0]})
    alarm = Alarm(window=2, threshold=1.0)
    assert parted(alarm, state, {"a": -1.0, "b": 0.0}) == [("a", "b")]
    assert parted(alarm, state, {"a": 1.0, "b": 0.0}) == []


def test_raising_kl_multiplies_every_coefficient_and_survives_a_resume(tmp_path: Path) -> None:
    tree = config(tmp_path, 6, action="raise_kl", threshold=1.0, kl_factor=8.0)
    tree["trust_region"]["stepwise"] = {"coefficient": 0.5}
    start(load_config(tree))
    found = lines(tmp_path)
    assert [row["alarm/rung"] for row in found] == [0, 0, 0, 1, 0, 0]
    assert found[3]["coefficient/stepwise/denoise"] == 0.5
    assert found[4]["coefficient/stepwise/denoise"] == 4.0
    record = json.loads((newest_sound(tmp_path / "run/checkpoints") / "state.json").read_text())  # type: ignore[operator]
    assert record["alarm"]["kl_factor"] == 8.0 and len(record["alarm"]["history"]["up"]) == 2


def test_a_step_without_a_mean_survives_a_resume_as_valid_json(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path, 2))
    recipe = loaded.build()
    state = initial_state(recipe, loaded.train)
    state.alarm.history["up"] = [1.0, math.nan]
    path = save_checkpoint(tmp_path / "checkpoints", recipe.policy.module, state, keep=2)
    assert "NaN" not in (path / "state.json").read_text()
    fresh = initial_state(recipe, loaded.train)
    load_checkpoint(path, recipe.policy.module, fresh)
    assert fresh.alarm.history["up"][0] == 1.0 and math.isnan(fresh.alarm.history["up"][1])


def test_rolling_back_puts_the_anchor_s_weights_in_place(tmp_path: Path) -> None:
    start(load_config(config(tmp_path, 4, action="roll_back", threshold=1.0)))
    found = newest_sound(tmp_path / "run/checkpoints")
    assert found is not None and lines(tmp_path)[3]["alarm/rung"] == 1
    live, anchor = (
        load_file(found / "weights.safetensors"),
        load_file(found / "anchor-periodic.safetensors"),
    )
    assert all(live[name].equal(anchor[name]) for name in anchor)


def test_stopping_saves_first_and_a_resume_goes_on(tmp_path: Path) -> None:
    with pytest.raises(RewardHackingError, match="stopped at step 4"):
        start(load_config(config(tmp_path, 5, action="stop", threshold=1.0)))
    assert resume(tmp_path / "run").step == 5


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"rewards": {"smoothness": {"weight": 1.0}}}, r"train\.alarm: no reward is watched"),
        ({"trust_region": {}}, r"train\.alarm\.action: roll_back needs"),
    ],
)
def test_an_alarm_that_cannot_work_is_refused(tmp_path: Path, change: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(config(tmp_path, 4, action="roll_back") | change)
