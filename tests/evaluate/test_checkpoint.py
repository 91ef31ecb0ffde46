"""`mmrl train` ends with what changed; `mmrl eval` says where it wrote and overwrites no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from mmrl.cli import app
from mmrl.config import UserError
from mmrl.evaluate.checkpoint import file_name
from mmrl.evaluate.result import read_result
from tests.tiny import vlm_config, write_pictures


def mmrl(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "250"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of one step with an evaluation before and after, and what training printed."""
    folder = tmp_path_factory.mktemp("runs")
    run = folder / "runs" / "mine"
    tree = vlm_config(run, folder / "data", 1)
    tree["rewards"]["answer_format"]["weight"] = 0.0
    tree["evaluate"] = {"prompts": str(write_pictures(folder / "held_out")), "count": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    done = mmrl("train", folder / "config.yaml")
    assert done.exit_code == 0, done.output
    return run, done.output


@pytest.fixture
def run(trained: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(trained[0], tmp_path / "runs" / "mine")
    return tmp_path / "runs" / "mine"


def test_training_ends_with_each_held_out_metric_and_its_verdict(trained: tuple[Path, str]) -> None:
    lines = {line.split()[0]: line for line in trained[1].splitlines() if line.strip()}
    assert "trained" in lines["reward"] and "trained" in lines["accuracy"]
    assert "watched" in lines["answer_format"]
    assert all("no clear change" in lines[name] for name in ("reward", "answer_format"))
    assert "means of 3 samples with 95 % intervals" in trained[1]


def test_each_evaluation_of_a_checkpoint_has_its_own_folder(run: Path) -> None:
    done = mmrl("eval", run)
    assert done.exit_code == 0 and f"wrote {run}/evaluations/step-000001/report.json" in done.output
    fewer = mmrl("eval", run, "evaluate.count=2")
    assert f"wrote {run}/evaluations/step-000001-count=2/" in fewer.output, fewer.output
    folders = [run / "evaluations" / name for name in ("step-000001", "step-000001-count=2")]
    assert [len(read_result(folder).rows) for folder in folders] == [3, 2]
    assert mmrl("eval", run).exit_code == 0  # the same one again
    roles = json.loads((run / "evaluation.json").read_text())
    assert roles["watched"] == ["answer_format"]


def test_another_evaluation_is_never_overwritten(run: Path) -> None:
    assert mmrl("eval", run).exit_code == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluate"]["count"] = 2
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    done = mmrl("eval", run)
    assert "holds an evaluation of 3 samples, this one has 2; move it away" in str(done.exception)
    assert len(read_result(run / "evaluations" / "step-000001").rows) == 3


def test_a_run_that_cannot_be_evaluated_is_skipped_with_a_line(run: Path) -> None:
    other = shutil.copytree(run, run.parent / "another")
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump(config | {"evaluate": None}))
    done = mmrl("eval", run.parent)
    assert done.exit_code == 0 and "wrote" in done.output, done.output
    assert f"skipped: {other}/config.yaml has no `evaluate` section" in done.output
    assert "has no `evaluate` section" in str(mmrl("eval", other).exception)


def test_compare_of_runs_names_their_evaluations(run: Path) -> None:
    with pytest.raises(UserError, match=r"is a run: name one of its evaluations, .*evaluations/af"):
        read_result(run)


def test_a_path_in_an_override_makes_one_name() -> None:
    name = file_name("step-1", ["rewards.accuracy.weight=1", "evaluate.prompts=a/b.jsonl"])
    assert name == "step-1-prompts=a_b.jsonl-rewards.accuracy.weight=1"
