"""Every file in configs/ is read, and every tiny one can be built."""

from pathlib import Path

import pytest
import yaml

from mmrl.config import Config, apply_overrides, dump, parse, read_yaml
from mmrl.recipe import pipelines
from mmrl.train.loop import load_config
from mmrl.trust_region.controller import Proportional, Scheduled
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


REAL = [p for p in FILES if "tiny" not in p.stem]


@pytest.mark.parametrize("path", REAL, ids=str)
def test_a_real_config_does_not_train_all_weights_of_billions(path: Path) -> None:
    """Masters, gradients and moments take 16 bytes a weight on every GPU: nothing is sharded."""
    assert load_config(read_yaml(path)).lora is not None


def test_the_large_hunyuan_config_keeps_its_7b_text_encoder_off_the_device() -> None:
    config = load_config(read_yaml(Path("configs/sage_grpo/hunyuan_video15_64gpu.yaml")))
    assert config.offload_text_encoder


def test_draft_has_the_values_that_a_reimplementation_restates_of_the_paper() -> None:
    config = read_yaml(Path("configs/draft_k/wan2_1_1_3b.yaml"))
    assert config["lora"]["rank"] == 8
    assert config["train"]["optimizer"] == {"lr": 4e-4, "weight_decay": 0.1}
    assert (config["sampling"]["num_steps"], config["last_steps"]) == (20, 1)


WAN = Path("configs/sage_grpo/wan2_1_1_3b.yaml")


def changed(path: Path, *overrides: str) -> dict:
    return load_config(apply_overrides(read_yaml(path), overrides)).model_dump()


def test_one_key_of_a_default_section_changes_alone() -> None:
    before = changed(WAN)["trust_region"]
    assert before["periodic"] and before["stepwise"]
    found = changed(WAN, "trust_region.fixed.coefficient=0.004")["trust_region"]
    assert found["fixed"]["coefficient"] == 0.004
    assert (found["periodic"], found["stepwise"]) == (before["periodic"], before["stepwise"])
    found = changed(WAN, "trust_region.periodic.refresh_every=5")["trust_region"]
    assert found["periodic"] == {**before["periodic"], "refresh_every": 5}


def test_null_takes_a_part_of_a_default_section_away() -> None:
    found = changed(WAN, "trust_region.periodic=null")["trust_region"]
    assert found["periodic"] is None and found["stepwise"] is not None


def test_a_method_keeps_what_its_file_does_not_name() -> None:
    sophia, med = Path("configs/sophia_vl/tiny.yaml"), Path("configs/med_r1/qwen2_5_vl_3b.yaml")
    gates = changed(sophia)["mixing"]["gates"]
    assert gates and changed(sophia, "mixing.kind=weighted_sum")["mixing"]["gates"] == gates
    assert changed(sophia, "mixing.gates={}")["mixing"]["gates"] == {}
    whole, one = changed(med)["trust_region"], changed(med, "trust_region.estimator=k2")
    assert whole["fixed"] and one["trust_region"] == {**whole, "estimator": "k2"}


class Adaptive(Config):
    """A section whose default is of one kind."""

    coefficient: Scheduled | Proportional = Proportional(
        kind="proportional", initial=0.1, target=1e-3, horizon=100
    )


def test_sections_of_two_kinds_are_not_mixed() -> None:
    linear = {"kind": "linear", "start": 1.0, "end": 0.0, "steps": 5}
    assert parse(Adaptive, {"coefficient": linear}).coefficient == Scheduled(**linear)
    found = parse(Adaptive, {"coefficient": {"target": 1e-2}}).coefficient
    assert isinstance(found, Proportional)
    assert (found.initial, found.target) == (0.1, 1e-2)


def test_a_config_that_was_written_out_reads_as_itself() -> None:
    for path in FILES:
        config = load_config(read_yaml(path))
        again = load_config(yaml.safe_load(dump(config)))
        assert again.model_dump() == config.model_dump(), path
