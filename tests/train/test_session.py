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
