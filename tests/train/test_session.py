"""A run as an object takes the steps of `mmrl train`, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from mmrl.train.loop import load_config, start
from mmrl.train.session import train
from tests.tiny import video_config


def test_the_steps_are_those_of_a_run(tmp_path: Path) -> None:
    start(load_config(video_config(tmp_path / "run")))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    session = train(load_config(video_config(tmp_path / "nothing")))
    found = list(session)
    assert session.state.step == len(found) == len(lines) == 2
    for metrics, line in zip(found, lines, strict=True):
        written = {k: v for k, v in json.loads(line).items() if k != "step"}
        assert metrics.keys() == written.keys()
        assert {k: v for k, v in metrics.items() if not k.startswith("time/")} == {
            k: v for k, v in written.items() if not k.startswith("time/")
        }
    assert not (tmp_path / "nothing").exists()
    assert session.recipe.policy.sample(session.recipe.prompts[:1], [0])


def test_of_faults_only_those_that_came_up_are_logged(tmp_path: Path) -> None:
    tree = video_config(tmp_path / "run", 1)
    (tmp_path / "picky.py").write_text(
        "def picky(samples):\n    return [None, *([1.0] * (len(samples) - 1))]\n"
    )
    tree["rewards"]["picky"] = {"path": f"{tmp_path}/picky.py:picky", "weight": 0.0}
    (metrics,) = train(load_config(tree))
    told = {key for key in metrics if key.startswith("reward/") and key.count("/") == 2}
    counted = {"reward/picky/abstained", "reward/picky/short_group"}
    missing = {f"reward/{name}/missing" for name in tree["rewards"]}
    assert missing <= told and told - missing <= counted and "reward/picky/abstained" in told
