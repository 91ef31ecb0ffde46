"""A killed run that is resumed ends as the run that was never killed, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from mmrl.train.checkpoint import checkpoints, newest_sound
from mmrl.train.stop import EXIT_STOPPED, NOTICE
from tests.tiny import video_config, vlm_config

STEPS = 5
MMRL = [sys.executable, "-c", "from mmrl.cli import main; main()"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def write_config(family: str, output: Path, steps: int = STEPS) -> Path:
    tree = (
        video_config(output, steps)
        if family == "video"
        else vlm_config(output, output.parent / "data", steps)
    )
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MMRL, *words],
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*words: str) -> tuple[int, str]:
    with start(*words) as process:
        out, _ = process.communicate(timeout=300)
    return process.returncode, out


def kill_at(run: Path, step: int, *words: str) -> None:
    with start(*words) as process:
        wait_for_step(process, run, step)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def steps_written(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text("utf-8").splitlines()) if path.exists() else 0


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while steps_written(run) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run never reached the step"
        time.sleep(0.01)


def curves(run: Path) -> list[dict[str, float]]:
    """All metrics but the clock's."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def assert_same_end(left: Path, right: Path) -> None:
    assert curves(left) == curves(right)
    ours, theirs = (checkpoints(run / "checkpoints")[-1] for run in (left, right))
    assert ours.name == theirs.name == f"step-{STEPS:06d}"
    for name in ("weights", "anchor-periodic", "anchor-stepwise"):
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        assert a.keys() == b.keys()
        assert all(a[key].equal(b[key]) for key in a), name
    assert (ours / "state.json").read_text() == (theirs / "state.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["video", "vlm"])
def test_kill_9_and_resume_equal_the_uninterrupted_run(family: str, tmp_path: Path) -> None:
    """Killed once before any checkpoint and once between two, with a moving anchor in flight."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, out = finish("train", str(write_config(family, whole)))
    assert code == 0, out
    kill_at(cut, 1, "train", str(write_config(family, cut)))
    kill_at(cut, 3, "resume", str(cut))
    code, out = finish("resume", str(cut))
    assert code == 0, out
    assert_same_end(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_saves_at_the_step_boundary_and_says_so(
    number: signal.Signals, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with start("train", str(write_config("video", run, steps=200))) as process:
        wait_for_step(process, run, 1)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED, out
    assert "mmrl resume" in out and "Traceback" not in out
    assert (NOTICE in out) == (number == signal.SIGINT)
    found = newest_sound(run / "checkpoints")
    assert found is not None
    assert found.name == f"step-{steps_written(run):06d}"
