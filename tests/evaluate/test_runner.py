"""An evaluation of a run: what fails is filed, and the pictures of a prompt are part of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mmrl.evaluate.compare import compare
from mmrl.evaluate.result import read_result
from mmrl.evaluate.runner import evaluate, write_evaluation, write_gallery
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
    assert result.failures() == [("broken", "error: ValueError: no weights (broken.py:2)", 3)]
    assert all(row.scores["broken"] is None for row in result.rows)
    assert all(math.isfinite(row.score("accuracy")) for row in result.rows)
    assert len({row.pictures for row in result.rows}) == 3
    assert len(result.subject["prompts_sha256"]) == 64
    assert [one.difference for one in compare(result, result) if one.name == "accuracy"] == [0.0]


def strict(text: str) -> object:
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_file_is_valid_json_where_a_reward_abstains_everywhere(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("def silent(sample):\n    return None\n")
    tree = vlm_config(tmp_path / "run", tmp_path / "data")
    tree["rewards"]["silent"] = {"path": f"{tmp_path}/silent.py:silent", "weight": 0.0}
    tree["evaluate"] = {"prompts": str(write_pictures(tmp_path / "held_out")), "count": 3}
    config = load_config(tree)
    assert config.evaluate is not None
    recipe = config.build()
    found = evaluate(recipe, config.evaluate)
    write_evaluation(tmp_path, "before", recipe, found)
    write_gallery(tmp_path, "before", found, 2)
    summary = strict((tmp_path / "evaluation.json").read_text())
    assert isinstance(summary, dict) and summary["before"]["silent"]["mean"] is None
    strict((tmp_path / "gallery" / "index.json").read_text())
    strict((tmp_path / "evaluations" / "before" / "report.json").read_text())
    for line in (tmp_path / "evaluations" / "before" / "samples.jsonl").read_text().splitlines():
        strict(line)
