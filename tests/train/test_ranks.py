"""Two processes give the curve of one: same global batch, same noise, same means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmrl.train.checkpoint import checkpoints
from tests.tiny import video_config, vlm_config

SAME = ("reward/mean", "loss", "kl/periodic", "kl/stepwise", "grad_norm", "clip_fraction")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d"]
"""`accelerate launch --cpu --num_processes 2` starts one process."""


def curve(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k.startswith(SAME)} for row in rows]


PROGRAM = """
import sys, torch
import mmrl.torchvision_fix
from accelerate import PartialState
torch.accelerator.device_count = lambda: 1  # diffusers wants to see one before it splits tokens
assert PartialState(cpu=True).num_processes == int(sys.argv.pop(1))
from mmrl.cli import main
main()
"""


@pytest.mark.slow
def test_two_processes_sum_gradients_of_whole_weights_in_bfloat16(tmp_path: Path) -> None:
    """Wan keeps some of them in float32; means are those of one process within bfloat16."""
    curves = []
    for processes in (1, 2):
        run, config = tmp_path / str(processes), tmp_path / f"{processes}.yaml"
        tree = video_config(run, 2, rows=2) | {"precision": "bfloat16"}
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        train(config, processes)
        curves.append(curve(run))
    for one, two in zip(*curves, strict=True):
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.05)
        assert two["reward/mean"] == pytest.approx(one["reward/mean"], rel=0.05)


def train(config: Path, processes: int) -> None:
    program = config.with_name("program.py")
    program.write_text(PROGRAM, encoding="utf-8")
    count = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", str(processes)]
    command = [*LAUNCH, *count, str(program), str(processes), "train", str(config)]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_on_the_same_samples_follow_the_curve_of_one(tmp_path: Path) -> None:
    """Each holds half of the tokens; gradients, means and the held-out reward are those of one."""
    curves, held_out = [], []
    for processes in (1, 2):
        run, config = tmp_path / str(processes), tmp_path / f"{processes}.yaml"
        tree = video_config(run, 3, rows=2, optimizer={"lr": 1e-4})
        tree["mixing"] = {"kind": "gdpo"}
        tree["evaluate"] = {"prompts": tree["prompts"], "count": 4, "rows": 4}
        if processes == 2:
            tree["context_parallel"] = {"ulysses_degree": 2}
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        train(config, processes)
        curves.append(curve(run))
        found = json.loads((run / "evaluation.json").read_text("utf-8"))
        held_out.append([found[when]["reward"]["mean"] for when in ("before", "after")])
    assert len(curves[0]) == len(curves[1]) == 3
    for one, two in zip(*curves, strict=True):
        assert two == pytest.approx(one, abs=1e-4)
    assert held_out[1] == pytest.approx(held_out[0], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["video", "vlm"])
def test_two_processes_follow_the_curve_of_one(family: str, tmp_path: Path) -> None:
    """Five steps, two updates each, moving anchors and an adaptive coefficient."""
    curves = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        changes = {"rows": 2, "optimizer": {"lr": 1e-4}}
        tree = (
            video_config(run, 5, **changes)
            if family == "video"
            else vlm_config(run, tmp_path / "data", 5, **changes)
        )
        if family == "video":
            tree["mixing"] = {"kind": "gdpo"}  # normalizes over the batch of all ranks
        config = tmp_path / f"{processes}.yaml"
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        train(config, processes)
        curves.append(curve(run))
        newest = checkpoints(run / "checkpoints")[-1]
        state = json.loads((newest / "state.json").read_text("utf-8"))
        assert len(state["faults"]) == processes
    assert len(curves[0]) == len(curves[1]) == 5
    for one, two in zip(*curves, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=1e-4), name
