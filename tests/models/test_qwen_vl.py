"""What is special about the Qwen families: where an answer's positions go on, and DeepStack."""

from __future__ import annotations

import pytest
import torch

from mmrl.models.vlm import VlmModel
from mmrl.types import Prompt
from tests.tiny_vlm import noise_prompts, random_model

TEMPLATE = "{question} Say A or B."


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    return noise_prompts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def model(request) -> VlmModel:
    return random_model(request.param)


@torch.no_grad()
def test_positions_go_on_where_the_models_own_index_goes_on(model, prompts) -> None:
    """n x n image tokens take n positions, so the answer starts n^2 - n before its index."""
    inputs = model.inputs(prompts[:1], TEMPLATE)
    tokens = int((inputs[0].types == 1).sum())
    side = round(tokens**0.5)
    assert side * side == tokens >= 9
    saved = tokens - side
    assert int(model.prefix(inputs).next_position[0]) == len(inputs[0].ids) - saved


@torch.no_grad()
def test_a_prompt_without_a_picture_is_plain_text(model) -> None:
    prefix = model.prefix(model.inputs([Prompt("what is it?")], TEMPLATE))
    assert int(prefix.next_position[0]) == prefix.mask.shape[1]


@torch.no_grad()
def test_deepstack_features_reach_the_text_layers(prompts) -> None:
    """Without them the answer to a picture would be another one."""
    model = random_model("qwen3_vl")
    seen = model.look(model.inputs(prompts[:1], TEMPLATE))
    features = seen[0].features
    assert features is not None and len(features.layers) == 2
    found = model.prefix(seen).last_hidden
    for layer in features.layers:
        layer.zero_()
    assert (model.prefix(seen).last_hidden - found).abs().max() > 1e-2
