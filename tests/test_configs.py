"""Every file in configs/ is read, and every tiny one can be built."""

from pathlib import Path

import pytest

from mmrl.config import apply_overrides, read_yaml
from mmrl.recipe import pipelines
from mmrl.train.loop import load_config
from tests.tiny import write_pictures

FILES = sorted(Path("configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_config_is_read_and_names_its_folder(path: Path) -> None:
    config = load_config(read_yaml(path))
    assert config.pipeline == path.parent.name


@pytest.mark.parametrize("path", [p for p in FILES if p.stem == "tiny"], ids=str)
def test_a_tiny_config_builds(path: Path, tmp_path: Path) -> None:
    tree = read_yaml(path)
    if tree["prompts"].startswith("cache:"):
        tree = apply_overrides(tree, [f"prompts={write_pictures(tmp_path)}"])
    recipe = load_config(tree).build()
    assert sum(p.numel() for p in recipe.policy.module.parameters()) > 1e5


def test_every_pipeline_has_a_tiny_config_and_a_real_one() -> None:
    for name in pipelines.names():
        found = {path.stem for path in Path("configs", name).glob("*.yaml")}
        assert "tiny" in found and len(found) > 1


def test_draft_has_the_values_that_a_reimplementation_restates_of_the_paper() -> None:
    config = read_yaml(Path("configs/draft_k/wan2_1_1_3b.yaml"))
    assert config["lora"]["rank"] == 8
    assert config["train"]["optimizer"] == {"lr": 4e-4, "weight_decay": 0.1}
    assert (config["sampling"]["num_steps"], config["last_steps"]) == (20, 1)
