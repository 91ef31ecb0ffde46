"""The Qwen adapter: what it loads, what it refuses, and padding that changes nothing."""

import json

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models.qwen_vl import QwenVlModel
from mmrl.types import Prompt
from tests.tiny_vlm import FAMILIES, noise_prompts, random_model

TEMPLATE = "{question} Say A or B."


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    return noise_prompts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(params=FAMILIES)
def model(request) -> QwenVlModel:
    return random_model(request.param)


@torch.no_grad()
def test_a_saved_folder_loads_to_the_same_model(model, prompts, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = QwenVlModel.from_pretrained(str(tmp_path))
    before, after = (
        each.prefix(each.inputs(prompts[:2], TEMPLATE)).last_hidden for each in (model, loaded)
    )
    torch.testing.assert_close(before, after, atol=0, rtol=0)


@torch.no_grad()
def test_left_padding_leaves_a_short_prompt_as_it_is(model, prompts):
    inputs = model.inputs(prompts, TEMPLATE)
    assert len(inputs[0].ids) < len(inputs[2].ids)
    together = model.prefix(inputs)
    for row, one in enumerate(inputs):
        alone = model.prefix([one])
        torch.testing.assert_close(
            together.last_hidden[row], alone.last_hidden[0], atol=2e-6, rtol=1e-5
        )
        assert together.next_position[row] == alone.next_position[0]


@torch.no_grad()
def test_an_answer_fed_token_by_token_has_the_hidden_states_of_one_pass(model, prompts):
    inputs = model.inputs(prompts, TEMPLATE)
    ids = torch.randint(20, 300, (3, 5), generator=torch.Generator().manual_seed(1))
    whole = model.advance(model.prefix(inputs), ids, 0)
    prefix = model.prefix(inputs)
    steps = [model.advance(prefix, ids[:, step : step + 1], step) for step in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=5e-6, rtol=1e-5)


@torch.no_grad()
def test_positions_go_on_where_the_models_own_index_goes_on(model, prompts):
    """16 image tokens take 4 positions, so the answer starts 12 before its index."""
    inputs = model.inputs(prompts[:1], TEMPLATE)
    assert int((inputs[0].types == 1).sum()) == 16
    assert int(model.prefix(inputs).next_position[0]) == len(inputs[0].ids) - 12


@torch.no_grad()
def test_a_prompt_without_a_picture_is_plain_text(model):
    prefix = model.prefix(model.inputs([Prompt("what is it?")], TEMPLATE))
    assert int(prefix.next_position[0]) == prefix.mask.shape[1]


def test_a_missing_folder_is_named_and_nothing_is_downloaded():
    with pytest.raises(ConfigError, match="no folder /nowhere/qwen"):
        QwenVlModel.from_pretrained("/nowhere/qwen")


def test_another_family_is_refused_before_its_weights_load(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ConfigError, match="holds a 'llava' model; this adapter reads qwen2_vl"):
        QwenVlModel.from_pretrained(str(tmp_path))


def test_a_folder_without_a_processor_is_named(model, tmp_path):
    model.module.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no processor that loads"):
        QwenVlModel.from_pretrained(str(tmp_path))


def test_a_processor_of_another_merge_size_is_refused(model, prompts):
    model.processor.image_processor.merge_size = 4
    with pytest.raises(ConfigError, match="has 4 image tokens for 16 image features"):
        model.inputs(prompts[:1], TEMPLATE)
