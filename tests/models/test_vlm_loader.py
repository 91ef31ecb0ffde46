"""Which adapter a folder gets, and what is refused before any weights load."""

from __future__ import annotations

import json

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models import quantize
from mmrl.models.vlm_loader import ADAPTERS, load_vlm
from tests.tiny_vlm import FAMILIES, random_model


def load(path: object) -> object:
    return load_vlm(str(path), dtype=torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gets_the_adapter_of_its_family(family, tmp_path) -> None:
    model = random_model(family)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is type(model)
    for name, weights in model.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], weights), name


def test_a_family_without_an_adapter_is_refused_with_those_that_have_one(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(
        ConfigError, match=f"holds a 'llava' model; .*{sorted(ADAPTERS)[0]}"
    ) as error:
        load(tmp_path)
    assert error.value.key == "model"


def test_a_missing_folder_is_named_and_nothing_is_downloaded() -> None:
    with pytest.raises(ConfigError, match="model: no folder /nowhere/qwen"):
        load("/nowhere/qwen")


def test_four_bits_without_bitsandbytes_are_refused_with_the_cure(tmp_path, monkeypatch) -> None:
    random_model("qwen2_vl").save_pretrained(tmp_path)
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"quantization: .*pip install 'mmrl\[qlora\]'"):
        load_vlm(str(tmp_path), dtype=torch.float32, quantization="4bit")


def test_four_bits_without_a_gpu_are_refused(tmp_path, monkeypatch) -> None:
    random_model("qwen2_vl").save_pretrained(tmp_path)
    monkeypatch.setattr(quantize, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="quantization: '4bit' needs a CUDA device"):
        load_vlm(str(tmp_path), dtype=torch.float32, quantization="4bit")


def test_a_folder_without_a_processor_is_named(tmp_path) -> None:
    random_model("qwen2_vl").module.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no processor that loads"):
        load(tmp_path)
