"""An evaluation of a run: what fails is filed, and the pictures of a prompt are part of it."""

from __future__ import annotations

import math
from pathlib import Path

from mmrl.evaluate.compare import compare
from mmrl.evaluate.result import read_result
from mmrl.evaluate.runner import evaluate, write_evaluation
from mmrl.train.loop import load_config
from tests.tiny import vlm_config, write_pictures


def test_a_reward_that_always_fails_ends_no_evaluation_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def broken(sample):\n    raise ValueError('no weights')\n")
    tree = vlm_config(tmp_path / "run", tmp_path / "data")
    tree["rewards"]["broken"] = {
        "path": f"{tmp_path}/broken.py:broken",
        "weight": 0.0,
        "faults": {"retries": 0, "budget": 0.1},
    }
    tree["evaluate"] = {"prompts": str(write_pictures(tmp_path / "held_out")), "count": 3}
    config = load_config(tree)
    assert config.evaluate is not None
    recipe = config.build()
    found = evaluate(recipe, config.evaluate)
    write_evaluation(tmp_path, "before", recipe, found)
    result = read_result(tmp_path / "evaluations" / "before")
    assert result.failures() == [("broken", "error: no weights", 3)]
    assert all(row.scores["broken"] is None for row in result.rows)
    assert all(math.isfinite(row.score("accuracy")) for row in result.rows)
    assert len({row.pictures for row in result.rows}) == 3
    assert len(result.subject["prompts_sha256"]) == 64
    assert [one.difference for one in compare(result, result) if one.name == "accuracy"] == [0.0]
