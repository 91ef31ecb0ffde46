"""What a person types: one clear line for a mistake, exit status 2, and quick answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.config import UserError, apply_overrides, read_yaml
from mmrl.train.loop import load_config, start
from tests.tiny import video_config, vlm_config, write_pictures


def mmrl(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from mmrl.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def change(tree: dict, key: str, value: object) -> dict:
    node = tree
    *parents, last = key.split(".")
    for part in parents:
        node = node[part]
    node[last] = value
    return tree


MISTAKES = {
    "unknown key": (
        ("trust_region.periodic.refresh_evry", 3),
        r"trust_region\.periodic\.refresh_evry: unknown key; did you mean 'refresh_every'\?"
        r" \(known: by_kind, coefficient, refresh_every, ",
    ),
    "group of one": (("group_size", 1), r"group_size: a group of 1 has no advantage; need >= 2"),
    "wrong type": (("group_size", "eight"), r"group_size: expected int, got 'eight'"),
    "missing model folder": (("model", "./nowhere"), r"model: no folder \./nowhere"),
    "folder without a model": (("model", "tests"), r"model: tests holds no model_index\.json"),
    "reward with a typo": (
        ("rewards", {"smoothnes": {}}),
        r"rewards\.smoothnes: no reward named 'smoothnes'; did you mean 'smoothness'\?",
    ),
    "reward field with a typo": (
        ("rewards", {"smoothness": {"tolerence": 1}}),
        r"rewards\.smoothness\.tolerence: unknown key; did you mean 'tolerance'\?",
    ),
    "LoRA that matches nothing": (
        ("lora", {"targets": ["q_proj"]}),
        r"lora\.targets: 'q_proj' matches no linear layer of WanTransformer3DModel",
    ),
    "deterministic plan": (
        ("sampling.transition", "ode"),
        r"sampling\.transition: every step is deterministic, .* choose sage, flow",
    ),
    "no noise": (("sampling.eta", 0), r"sampling\.transition: every step is deterministic"),
    "rows that cut a group": (("train.rows", 3), r"train\.rows: 3 rows cut a group of 2"),
    "choice with a typo": (
        ("sampling.transition", "sgae"),
        r"^sampling\.transition: no such choice: 'sgae'; did you mean 'sage'\? \(known: .*ddim",
    ),
    "choice in a list": (("train.trackers", ["wadb"]), r"^train\.trackers\.0: .* mean 'wandb'\?"),
    "pipeline with a typo": (("pipeline", "sage_gpro"), r"pipeline: .* did you mean 'sage_grpo'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_config_is_one_line_that_names_the_key(name: str, tmp_path: Path) -> None:
    (key, value), message = MISTAKES[name]
    tree = change(video_config(tmp_path / "run"), key, value)
    with pytest.raises(UserError, match=message):
        start(load_config(tree))


def test_a_reward_that_fails_too_often_ends_a_training_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def broken(sample):\n    raise ValueError('no weights')\n")
    section = {"broken": {"path": f"{tmp_path}/broken.py:broken", "faults": {"retries": 0}}}
    tree = change(video_config(tmp_path / "run"), "rewards", section)
    with pytest.raises(UserError, match=r"reward 'broken' failed on .* last failure: .*no weights"):
        start(load_config(tree))


def test_list_names_pipelines_rewards_and_data_sets_with_their_brackets() -> None:
    done = CliRunner().invoke(app, ["list"], env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    for name in ("sage_grpo", "smoothness", "Of the first [x1, y1, x2, y2]", "brain_mri", "minilm"):
        assert name in done.output


def test_a_broken_prompt_line_is_named_by_its_number(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "a red three moving left"}\n{"text": oops}\n')
    tree = change(video_config(tmp_path / "run"), "prompts", str(prompts))
    with pytest.raises(UserError, match=r"prompts\.jsonl:2: not valid JSON"):
        start(load_config(tree))


def test_a_corrupt_image_is_named_with_its_line(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    picture = tmp_path / "data" / "3.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(UserError, match=r"prompts\.jsonl:4: image .*3\.png cannot be read"):
        folder = tmp_path / "data"
        tree = vlm_config(tmp_path / "run", tmp_path / "other")
        start(load_config(change(tree, "prompts", str(folder / "prompts.jsonl"))))


def test_a_mistake_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(video_config(tmp_path / "run")), encoding="utf-8")
    done = mmrl("train", str(config), "train.stepps=3")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("config error: train.stepps: unknown key; did you mean 'steps'? (known:")
    assert not (tmp_path / "run").exists()


def test_show_prints_a_config_that_reads_back_to_the_same(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(video_config(tmp_path / "run")), encoding="utf-8")
    once = mmrl("show", str(config), "train.optimizer.lr=1e-5")
    assert once.returncode == 0, once.stderr
    assert yaml.safe_load(once.stdout)["train"]["optimizer"]["lr"] == 1e-5
    config.write_text(once.stdout, encoding="utf-8")
    assert mmrl("show", str(config)).stdout == once.stdout


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="already holds a run: `mmrl resume"):
        start(load_config(video_config(run)))


def test_a_picture_survives_the_check_that_a_corrupt_one_fails(tmp_path: Path) -> None:
    path = write_pictures(tmp_path)
    with Image.open(tmp_path / "0.png") as image:
        assert image.size == (112, 112)
    assert path.is_file()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(video_config(tmp_path / "file" / "run")), encoding="utf-8")
    done = mmrl("train", str(config))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {tmp_path}/file/run: Not a directory"]


def test_missing_keys_are_named_all_at_once(tmp_path: Path) -> None:
    tree = video_config(tmp_path / "run")
    for section, key in ((tree, "prompts"), (tree, "model"), (tree["train"], "rows")):
        del section[key]
    with pytest.raises(
        UserError, match=r"^prompts, model, train\.rows: missing; these keys have no default$"
    ):
        load_config(tree)


def test_a_folder_in_the_place_of_a_config_names_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").touch()
    (tmp_path / "a.yml").touch()
    with pytest.raises(UserError, match=r"a folder, not a config file; it holds a\.yml, b\.yaml$"):
        read_yaml(tmp_path)


def test_the_hint_of_a_bad_override_names_a_key_that_exists(tmp_path: Path) -> None:
    tree = video_config(tmp_path / "run")
    with pytest.raises(UserError, match="expected key=value, such as ") as told:
        apply_overrides(tree, ["train.steps"])
    load_config(apply_overrides(tree, [str(told.value).split("such as ")[1]]))
