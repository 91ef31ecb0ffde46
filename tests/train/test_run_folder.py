"""A run is written into a folder of its own, or refused in one line with what to choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.config import ConfigError, UserError
from mmrl.demo import run_demo
from mmrl.train import loop
from mmrl.train.loop import load_config, resume, start
from mmrl.train.run_folder import check_new, is_run
from tests.tiny import video_config


def begun(run: Path) -> Path:
    """A run that ended before its first step."""
    run.mkdir(parents=True)
    for name in ("config.yaml", "versions.json"):
        (run / name).write_text("{}")
    return run


def test_a_new_folder_and_an_empty_one_will_do(tmp_path: Path) -> None:
    check_new(tmp_path / "new" / "run")
    check_new(tmp_path)


def test_a_run_that_ended_before_its_first_step_may_begin_again(tmp_path: Path) -> None:
    check_new(begun(tmp_path / "run"))


def test_a_config_of_the_users_own_is_not_written_over(tmp_path: Path, monkeypatch) -> None:
    """`mmrl train config.yaml output=.`"""
    mine = tmp_path / "config.yaml"
    mine.write_text("pipeline: sage_grpo\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"output: \. is not empty .*\(config.yaml\); .*=\./run$"):
        start(load_config(video_config(Path("."))))
    with pytest.raises(UserError, match="holds no run"):
        resume(Path("."))
    assert mine.read_text() == "pipeline: sage_grpo\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_folder_of_data_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(ConfigError, match=r"output: .*\(a.png, b.png, c.png, ...\); choose a new"):
        check_new(tmp_path)


def test_a_folder_inside_a_run_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for inside in (run / "model", run / "evaluations" / "deep"):
        with pytest.raises(ConfigError, match=f"output: .* inside the run {run}; .*output={run}-2"):
            check_new(inside)


def test_a_run_with_more_than_its_heading_is_resumed_and_not_begun_again(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"output: .* already holds a run: `mmrl resume"):
        check_new(run)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match=r"output: .*run is a file"):
        check_new(tmp_path / "run")


def test_the_demo_replaces_its_own_runs_and_nobody_elses_folder(
    tmp_path: Path, monkeypatch
) -> None:
    mine = tmp_path / "video" / "holiday.mp4"
    mine.parent.mkdir()
    mine.touch()
    monkeypatch.setattr(loop, "_run", lambda *_, **__: pytest.fail("a run began"))
    with pytest.raises(ConfigError, match=r"output: .*video is not empty"):
        run_demo(tmp_path, 0)
    assert mine.exists() and not is_run(mine.parent)
