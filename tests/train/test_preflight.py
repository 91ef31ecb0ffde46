"""What is wrong with a run is found before its model loads; a finished run may go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrl.config import ConfigError, apply_overrides
from mmrl.recipe import PipelineConfig
from mmrl.train import preflight
from mmrl.train.loop import load_config, resume, start
from mmrl.train.preflight import extended, warn_of_unread_images
from mmrl.video_recipe import VideoPipelineConfig
from tests.tiny import video_config, write_pictures


def refuse_to_load(*_: object) -> None:
    pytest.fail("the model was loaded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prompts={folder}/none.jsonl", r"^prompts: .*none\.jsonl: no such prompt file"),
        ("prompts={folder}/empty.jsonl", r"^prompts: .*empty\.jsonl: holds no prompts"),
        ("evaluate.prompts={folder}/none.jsonl", r"^evaluate\.prompts: .*no such prompt file"),
        ("prompts=cache:nothing/a.jsonl", r"^prompts: .*mmrl data fetch nothing"),
        ("train.trackers=[wandb]", r"^train\.trackers: .* run: pip install wandb"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_model_loads(
    change: str, message: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "empty.jsonl").touch()
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    monkeypatch.setattr(PipelineConfig, "build", refuse_to_load)
    tree = video_config(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        start(load_config(apply_overrides(tree, [change.format(folder=tmp_path)])))
    assert not (tmp_path / "run").exists()


def test_pictures_that_a_text_to_video_model_does_not_read_are_one_warning(
    tmp_path: Path, caplog
) -> None:
    tree = video_config(tmp_path / "run")
    tree["prompts"] = str(write_pictures(tmp_path / "data"))
    config = load_config(tree)
    assert isinstance(config, VideoPipelineConfig)
    warn_of_unread_images(config.build())
    (record,) = [one for one in caplog.records if one.name == preflight.logger.name]
    assert record.getMessage().startswith("prompts: 6 of 6 hold images, which WanModel does not")


def test_a_finished_run_goes_on_for_more_steps(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(load_config(video_config(run, 1))).step == 1
    (run / "evaluation.json").write_text(json.dumps({"before": {}, "after": {}}))
    assert resume(run, ["train.steps=2"]).step == 2
    assert json.loads((run / "evaluation.json").read_text()) == {"before": {}}
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert resume(run).step == 2


def test_nothing_else_of_a_run_changes() -> None:
    tree = {"train": {"steps": 5}}
    with pytest.raises(ConfigError, match=r"^train\.seed: a run goes on .* but for train\.steps"):
        extended(tree, ["train.seed=1"])
    with pytest.raises(ConfigError, match=r"^train\.steps: a run of 5 steps gets more, not 3"):
        extended(tree, ["train.steps=3"])
