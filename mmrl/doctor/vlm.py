"""Peak memory of a vision-language run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn

from mmrl.doctor.items import (
    FLOAT32,
    Blocks,
    Estimate,
    Item,
    activation_elements,
    count,
    everywhere,
    remade_elements,
    reward_items,
    size,
    training_items,
)
from mmrl.models.meta import meta_vlm
from mmrl.models.vlm import VlmModel
from mmrl.policies.lora import has_lora
from mmrl.trust_region.weights import trainable
from mmrl.vlm_recipe import VlmPipelineConfig, choose_trained

LOGIT_ROWS = 1024
"""Rows of one chunk of `token_log_probs`."""
PROMPT_TOKENS, IMAGE_TOKENS = 128, 256
"""Assumed of a prompt: its text, and one picture of 448 x 448 pixels after merging."""
NF4 = 0.5 + 1 / 64 + FLOAT32 / (64 * 256)
"""Bytes of a weight in four bits: a byte of scale for 64, a float32 for 256 of those."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass of `train.rows` answers."""

    prompts: int
    prompt: int
    rows: int
    new: int
    rollout_prompts: int
    """Prompts of a whole rollout."""

    @property
    def tokens(self) -> int:
        """Prompts once, answers each."""
        return self.prompts * self.prompt + self.rows * self.new

    @property
    def packed(self) -> int:
        """Length of a row that holds a prompt and all its answers."""
        return self.tokens // self.prompts


def estimate_vlm(config: VlmPipelineConfig) -> Estimate:
    """Weights, gradients, cache, activations of text model and vision tower, logits."""
    dtype = getattr(torch, config.precision)
    model = meta_vlm(config.model, dtype=dtype)
    parameters = {"model": count([model.module])}
    weights = weight_bytes(model, four_bits=config.quantization == "4bit")
    choose_trained(model, config)
    if has_lora(model.module):
        weights += size(trainable(model.module).values())
    parameters["trained"] = sum(p.numel() for p in trainable(model.module).values())
    rows = config.train.rows
    batch = Batch(
        prompts=ceil(rows / config.group_size),
        prompt=PROMPT_TOKENS + IMAGE_TOKENS,
        rows=rows,
        new=config.max_new_tokens,
        rollout_prompts=config.train.prompts_per_step,
    )
    items = [
        everywhere("model", weights),
        *training_items(model.module, config),
        *language_items(config, model, batch, dtype.itemsize),
        *vision_items(config, model, batch, dtype.itemsize),
        *reward_items(config),
    ]
    assumed = f"prompts of {PROMPT_TOKENS} text and {IMAGE_TOKENS} image tokens"
    return Estimate(tuple(items), parameters, assumed)


def weight_bytes(model: VlmModel, *, four_bits: bool) -> int:
    """All weights; in four bits the linear layers of the text model, as `load_vlm` has them."""
    whole = size(model.module.parameters())
    if not four_bits:
        return whole
    text = model.network.get_submodule(model.family.text)
    linear = [layer.weight for layer in text.modules() if isinstance(layer, nn.Linear)]
    return whole - size(linear) + round(NF4 * sum(weight.numel() for weight in linear))


def language_items(
    config: VlmPipelineConfig, model: VlmModel, batch: Batch, element: int
) -> Iterable[Item]:
    """Prompts run once a group; every answer holds keys and values of its prompt and itself.

    With gradient checkpointing the update has no cache but a row a prompt, and that row's mask.
    """
    text = model.module.config.to_dict()["text_config"]
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    layers = text["num_hidden_layers"]
    again = config.gradient_checkpointing
    cache = 2 * text["num_key_value_heads"] * head * layers * element
    cache *= batch.rows * (batch.prompt + batch.new)
    yield Item("keys and values", {"rollout": cache, "update": 0 if again else cache})
    if again:
        mask = batch.prompts * batch.packed**2 * (1 + element)
        yield Item("mask of packed rows", {"update": mask})
    blocks = language_blocks(text)
    backward = activation_elements(blocks, adapter=config.lora is not None, checkpointing=again)
    forward = max(batch.prompts * batch.prompt, batch.rows) * element * blocks.passing
    update = batch.tokens * element * backward
    yield Item("activations, language", {"rollout": forward, "update": update})
    logits = 3 * text["vocab_size"] * FLOAT32
    chunk = min(batch.rows * batch.new, LOGIT_ROWS) * logits
    if again:  # they are gone before the first block is made again
        remade = remade_elements(blocks, adapter=config.lora is not None)
        chunk = max(0, chunk - batch.tokens * element * remade)
    yield Item("logits", {"rollout": batch.rows * logits, "update": chunk})


def vision_items(
    config: VlmPipelineConfig, model: VlmModel, batch: Batch, element: int
) -> Iterable[Item]:
    """The tower over every prompt's patches; one at rest runs once, and its features are kept.

    With gradient checkpointing tower and text model make a block again one after the other.
    """
    network = model.module.config.to_dict()
    tower = vision_blocks(network["vision_config"])
    patches = IMAGE_TOKENS * patches_a_token(network)
    looking = batch.prompts * patches * element * tower.passing
    if not model.vision_learns:
        width = network["text_config"]["hidden_size"]
        features = batch.rollout_prompts * IMAGE_TOKENS * width * element
        yield Item("activations, vision", {"rollout": looking})
        yield Item("image features", {"rollout": features, "update": features})
        return
    adapter = config.lora is not None
    seen = batch.prompts * patches * element
    update = seen * activation_elements(tower, adapter=adapter, checkpointing=False)
    if config.gradient_checkpointing:
        blocks = language_blocks(network["text_config"])
        remade = batch.tokens * element * remade_elements(blocks, adapter=adapter)
        own = seen * remade_elements(tower, adapter=adapter)
        update = seen * tower.layers * tower.width + max(0, own - remade)
    yield Item("activations, vision", {"rollout": looking, "update": update})


def language_blocks(text: Mapping) -> Blocks:
    """The text model's stack."""
    width, hidden = text["hidden_size"], text["intermediate_size"]
    return Blocks(text["num_hidden_layers"], width, hidden, gated=True)


def patches_a_token(network: Mapping) -> int:
    """Patches of the vision tower that become one image token, by the family's own key."""
    if "scale_factor" in network:
        return network["scale_factor"] ** 2
    if "downsample_ratio" in network:
        return round(1 / network["downsample_ratio"] ** 2)
    return network["vision_config"]["spatial_merge_size"] ** 2


def vision_blocks(vision: Mapping) -> Blocks:
    """The vision tower; Qwen2-VL names its width `embed_dim`, and Qwen2.5-VL's MLP is gated."""
    width = vision.get("embed_dim") or vision["hidden_size"]
    hidden = vision.get("intermediate_size") or int(vision["mlp_ratio"] * width)
    layers = vision.get("depth") or vision["num_hidden_layers"]
    return Blocks(layers, width, hidden, gated=vision["model_type"].startswith("qwen2_5_vl"))
