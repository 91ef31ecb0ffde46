"""Two processes give the curve of one: same global batch, same noise, same means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tiny import video_config, vlm_config

SAME = ("reward/mean", "loss", "kl/periodic", "kl/stepwise", "grad_norm", "clip_fraction")
LAUNCH = [sys.executable, "-m", "mmrl.launch", "--cpu"]


def curve(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k.startswith(SAME)} for row in rows]


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
        command = [*LAUNCH, "--num_processes", str(processes), "-m", "mmrl", "train", str(config)]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        curves.append(curve(run))
    assert len(curves[0]) == len(curves[1]) == 5
    for one, two in zip(*curves, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=1e-4), name
