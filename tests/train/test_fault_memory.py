"""The budget of a stopped run goes on when it is resumed; one that ran out begins anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmrl.reward import RewardError, RewardTable
from mmrl.reward.faults import FaultMemory
from mmrl.train import loop
from mmrl.train.checkpoint import checkpoints, load_checkpoint
from mmrl.train.loop import initial_state, load_config, resume, start
from mmrl.train.reward_end import NOTE
from mmrl.train.stop import StopFlag
from tests.tiny import video_config

REWARD = '''
from pathlib import Path

def judge(samples, *, calls: str):
    """Brightness in the first call of a run, errors until a file `mended` is there."""
    with Path(calls).open("a") as log:
        log.write("x")
    if Path(calls).stat().st_size > 1 and not Path(calls).with_name("mended").exists():
        raise ValueError("broken")
    return [sample.video.mean().item() for sample in samples]
'''


def config_of(folder: Path, **train: Any) -> loop.PipelineConfig:
    """A budget that outlives one bad batch after a good one, and not two."""
    folder.mkdir()
    (folder / "judge.py").write_text(REWARD)
    tree = video_config(folder / "run", 5, updates_per_rollout=1, **train)
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
    told = str(whole.value).replace(str(tmp_path / "whole/run"), str(run))
    assert str(cut.value) == told
    assert "failed on 8 of 12 samples of the last 3 batches (8 error)" in told
    assert f"`mmrl resume {run}` goes on, with a new budget" in told


def test_a_run_that_a_reward_ended_resumes_with_a_new_budget(tmp_path: Path) -> None:
    """The checkpoint's 4 failures of 8 would not outlive another 4."""
    config = config_of(tmp_path / "own", save_every=1)
    run = tmp_path / "own/run"
    with pytest.raises(RewardError, match="failed on 8 of 12"):
        start(config)
    assert "failed on 8 of 12" in (run / NOTE).read_text()
    with pytest.raises(RewardError, match="failed on 4 of 4 samples of the last 1 batches"):
        resume(run)
    (tmp_path / "own/mended").touch()
    assert resume(run).step == 5
    assert not (run / NOTE).exists()


def test_a_checkpoint_from_before_there_were_memories_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "old")
    monkeypatch.setattr(loop, "stop_on_signal", stopped_at_every_step)
    start(config)
    path = checkpoints(tmp_path / "old/run/checkpoints")[-1]
    record = json.loads((path / "state.json").read_text())
    (memory,) = record.pop("faults")
    assert memory["judge"] == {"silent": 0, "causes": [{}], "sizes": [4]}
    (path / "state.json").write_text(json.dumps(record))
    recipe = config.build()
    state = initial_state(recipe, config.train)
    load_checkpoint(path, recipe.policy.module, state)
    assert state.step == 1 and state.faults == []


def test_memories_of_older_checkpoints_load_without_their_breakers() -> None:
    kept = {"failures": 5, "is_open": True, "silent": 2, "causes": [{"error": 1}], "sizes": [4]}
    assert FaultMemory.of(kept) == FaultMemory(2, [{"error": 1}], [4])


def test_silence_goes_on_being_counted() -> None:
    def table() -> RewardTable:
        return RewardTable({"mute": lambda samples: [None] * len(samples)}, {"mute": 1.0})

    before, after = table(), table()
    for _ in range(2):
        before.scorers["mute"].budget.spend(["abstained"] * 4, "none")
    after.recall(before.memory())
    with pytest.raises(RewardError, match="of 3 batches in a row"):
        after.scorers["mute"].budget.spend(["abstained"] * 4, "none")
