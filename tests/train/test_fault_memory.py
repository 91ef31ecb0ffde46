"""Budget and breaker of a resumed run go on where the stopped run left them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmrl.reward import FaultPolicy, RewardError, RewardTable
from mmrl.train import loop
from mmrl.train.checkpoint import checkpoints, load_checkpoint
from mmrl.train.loop import initial_state, load_config, resume, start
from mmrl.train.stop import StopFlag
from tests.tiny import video_config

REWARD = '''
from pathlib import Path
from mmrl.reward import RewardUnavailable

def judge(samples, *, calls: str):
    """Brightness in the first call of a run, away ever after."""
    with Path(calls).open("a") as log:
        log.write("x")
    if Path(calls).stat().st_size > 1:
        raise RewardUnavailable("away")
    return [sample.video.mean().item() for sample in samples]
'''


def config_of(folder: Path) -> loop.PipelineConfig:
    """A budget that outlives one bad batch after a good one, and not two."""
    folder.mkdir()
    (folder / "judge.py").write_text(REWARD)
    tree = video_config(folder / "run", 5, updates_per_rollout=1)
    tree["rewards"] = {
        "judge": {
            "path": f"{folder / 'judge.py'}:judge",
            "calls": str(folder / "calls"),
            "faults": {"retries": 0, "budget": 0.5},
        }
    }
    return load_config(tree)


@contextmanager
def stopped_at_every_step() -> Iterator[StopFlag]:
    yield StopFlag(raised=True)


def test_a_stopped_and_resumed_run_ends_where_the_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RewardError) as whole:
        start(config_of(tmp_path / "whole"))
    monkeypatch.setattr(loop, "stop_on_signal", stopped_at_every_step)
    assert start(config_of(tmp_path / "cut")).step == 1
    run = tmp_path / "cut/run"
    assert resume(run).step == 2
    with pytest.raises(RewardError) as cut:
        resume(run)
    assert str(cut.value) == str(whole.value)
    assert "failed on 8 of 12 samples of the last 3 batches (8 unavailable)" in str(cut.value)


def test_a_checkpoint_from_before_there_were_memories_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "old")
    monkeypatch.setattr(loop, "stop_on_signal", stopped_at_every_step)
    start(config)
    path = checkpoints(tmp_path / "old/run/checkpoints")[-1]
    record = json.loads((path / "state.json").read_text())
    (memory,) = record.pop("faults")
    counts = {"failures": 0, "is_open": False, "silent": 0}
    assert memory["judge"] == {**counts, "causes": [{}], "sizes": [4]}
    (path / "state.json").write_text(json.dumps(record))
    recipe = config.build()
    state = initial_state(recipe, config.train)
    load_checkpoint(path, recipe.policy.module, state)
    assert state.step == 1 and state.faults == []


def test_an_open_breaker_comes_back_as_one_that_may_probe() -> None:
    def table() -> RewardTable:
        policy = FaultPolicy(breaker_after=2, breaker_rest_s=1e6)
        return RewardTable({"judge": lambda samples: None}, {"judge": 1.0}, {"judge": policy})

    before, after = table(), table()
    breaker = before.scorers["judge"].breaker
    breaker.failed()
    breaker.failed()
    after.recall(before.memory())
    found = after.scorers["judge"].breaker
    assert found.rest_left() == 0 and found.failures == 2
    assert found.admit() and not found.admit()
    found.failed()
    assert found.rest_left() > 1e5


def test_silence_goes_on_being_counted() -> None:
    def table() -> RewardTable:
        return RewardTable({"mute": lambda samples: [None] * len(samples)}, {"mute": 1.0})

    before, after = table(), table()
    for _ in range(2):
        before.scorers["mute"].budget.spend(["abstained"] * 4, "none")
    after.recall(before.memory())
    with pytest.raises(RewardError, match="of 3 batches in a row"):
        after.scorers["mute"].budget.spend(["abstained"] * 4, "none")
