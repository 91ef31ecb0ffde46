"""Peak memory of a run, phase by phase, from its config and the model's config files alone.

Parameters and decoder are counted on shapes; activations are formulas whose constants were
measured on the tiny models (tests/test_doctor.py). One process without sharding is assumed, and
attention that never stores its table. Not counted: the allocator's cracks, kernels' workspace, the
text encoder's activations, and a backward pass through the decoder.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# (configs of diffusers and transformers type their fields loosely)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmrl.models.meta import PeakBytes, meta_video_model, meta_vlm
from mmrl.models.pipeline import denoiser_tokens
from mmrl.models.text_cache import is_text_part
from mmrl.policies.lora import add_lora
from mmrl.policies.video_model import VideoModel
from mmrl.recipe import PipelineConfig
from mmrl.trust_region.weights import is_adapter, trainable
from mmrl.video_recipe import VideoPipelineConfig

Place = Literal["rollout", "decode", "reward", "update", "host"]
"""Four phases on the device, and host memory."""
PLACES: tuple[Place, ...] = get_args(Place)
PHASES: tuple[Place, ...] = PLACES[:-1]
FLOAT32 = 4
"""Bytes."""
LOGIT_ROWS = 1024
"""Rows of one chunk of `token_log_probs`."""
PROMPT_TOKENS, IMAGE_TOKENS = 128, 256
"""Assumed of a VLM's prompt: its text, and one picture of 448 x 448 pixels after merging."""


@dataclass(frozen=True)
class Item:
    """One line of the table."""

    name: str
    bytes: Mapping[Place, int]


@dataclass(frozen=True)
class Estimate:
    """Peak memory of a run."""

    items: tuple[Item, ...]
    parameters: Mapping[str, int]
    """Counts by part; `trained` are those that learn."""

    def total(self, place: Place) -> int:
        """Bytes of all items at one place."""
        return sum(item.bytes.get(place, 0) for item in self.items)


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks."""

    layers: int
    width: int
    hidden: int
    """Width between the two layers of a block's MLP."""
    gated: bool = False
    """Whether the MLP is of the SwiGLU kind, as in language models."""

    def saved(self, *, adapter: bool) -> int:
        """Elements that one block keeps per token for its backward pass.

        Full: 20 d + 2 f (gated 15 d + 5 f); with frozen weights and LoRA on the attention, where
        frozen layers keep no input: 13 d + f (gated 8 d + 3 f).
        """
        per_width, per_hidden = {
            (False, False): (20, 2),
            (False, True): (13, 1),
            (True, False): (15, 5),
            (True, True): (8, 3),
        }[self.gated, adapter]
        return per_width * self.width + per_hidden * self.hidden

    @property
    def passing(self) -> int:
        """Elements alive per token inside one block whether or not it keeps any: 4 d + 2 f."""
        return 4 * self.width + (3 if self.gated else 2) * self.hidden


def activation_elements(blocks: Blocks, *, adapter: bool, checkpointing: bool) -> int:
    """Per token at the peak of one forward and backward pass: L saved + passing.

    With gradient checkpointing every block keeps its input alone, and one is made again:
    L d + saved + passing.
    """
    kept = blocks.saved(adapter=adapter)
    if checkpointing:
        return blocks.layers * blocks.width + kept + blocks.passing
    return blocks.layers * kept + blocks.passing


def count(modules: Iterable[nn.Module]) -> int:
    """Parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


def size(tensors: Iterable[Shaped[Tensor, ...]]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def estimate(config: PipelineConfig) -> Estimate:
    """Peak memory of the config's run; ConfigError where the model's config files are not here."""
    if isinstance(config, VideoPipelineConfig):
        return _estimate_video(config)
    return _estimate_vlm(config)


def everywhere(name: str, found: int) -> Item:
    """An item that stays on the device in every phase."""
    return Item(name, dict.fromkeys(PHASES, found))


def training_items(module: nn.Module, config: PipelineConfig) -> list[Item]:
    """Gradients, AdamW's two moments, and the anchors: adapters on the device, others in host.

    A whole anchor visits the device beside the live weights while it is evaluated.
    """
    learning = size(trainable(module).values())
    anchors = len(config.trust_region.anchors()) * learning
    items = [
        Item("gradients", {"update": learning}),
        everywhere("AdamW moments", 2 * learning),
    ]
    if is_adapter(module):
        return [*items, everywhere("anchors", anchors)]
    visit = learning if anchors else 0
    return [*items, Item("anchors", {"update": visit, "host": anchors})]


def part_item(name: str, part: nn.Module, config: VideoPipelineConfig) -> Item:
    """A part of a pipeline: on the device always, or in host memory between its visits."""
    waits = config.offload_text_encoder and is_text_part(name)
    found = size(part.parameters())
    return Item(name, {"host": found}) if waits else everywhere(name, found)


def reward_items(config: PipelineConfig) -> list[Item]:
    """Weight files of the rewards' model folders; they are scored in host memory."""
    folders = {entry["model"] for entry in config.rewards.describe().values() if "model" in entry}
    found = sum(file.stat().st_size for folder in folders for file in _weight_files(folder))
    return [Item("reward models", {"host": found})] if folders else []


def _weight_files(folder: str) -> list[Path]:
    return [*Path(folder).glob("*.safetensors")]


def denoiser_blocks(config: Mapping) -> Blocks:
    """The stack of a diffusers transformer from its config; double and single blocks count alike.

    The MLP is `ffn_dim` wide, or `mlp_ratio` (4) times the width.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers = config.get("num_layers", 0) + config.get("num_single_layers", 0)
    hidden = config.get("ffn_dim") or int((config.get("mlp_ratio") or 4) * width)
    return Blocks(layers, width, hidden)


def decode_peak(model: VideoModel, rows: int) -> int:
    """Bytes that decoding `rows` samples holds at its peak, found on shapes alone."""
    latents = torch.empty(rows, *model.latent_shape, device="meta")
    with torch.no_grad(), PeakBytes([latents, *model.pipeline.vae.parameters()]) as peak:
        model.decode(latents)
    return peak.peak


def _estimate_video(config: VideoPipelineConfig) -> Estimate:
    dtype = getattr(torch, config.precision)
    model = meta_video_model(config.model, config.video.size(), dtype=dtype, told=config.told())
    if config.tile_vae:
        model.pipeline.vae.enable_tiling()
        model.pipeline.vae.enable_slicing()
    parts = {k: p for k, p in model.pipeline.components.items() if isinstance(p, nn.Module)}
    parameters = {name: count([part]) for name, part in parts.items()}
    if config.lora:
        add_lora(model.module, config.lora, seed=0)
    parameters["trained"] = sum(p.numel() for p in trainable(model.module).values())
    items = [
        *(part_item(name, part, config) for name, part in parts.items()),
        *training_items(model.module, config),
        *_video_activations(config, model, dtype.itemsize),
        *reward_items(config),
    ]
    return Estimate(tuple(items), parameters)


def _video_activations(
    config: VideoPipelineConfig, model: VideoModel, element: int
) -> Iterable[Item]:
    """Paths, denoiser and decoder. Kept per sample and trained step: before, after and mean."""
    sampling = config.model_dump()["sampling"]
    rows, steps = config.train.rows, sampling["num_steps"]
    samples = config.train.prompts_per_step * config.group_size
    latent = prod(model.latent_shape) * FLOAT32
    kept = samples * 3 * (sampling.get("trained_count") or steps) * latent
    path = min(rows, samples) * (3 * steps + 1) * latent
    yield Item("paths", {"rollout": kept + path, "decode": kept + path})
    yield Item("replay", {"reward": kept, "update": kept})
    network = model.pipeline.transformer.config
    blocks = denoiser_blocks(network)
    passes = 1 if sampling["guidance"] == 1 else 2
    tokens = denoiser_tokens(model.latent_shape, network) + config.video.max_sequence_length
    forward = rows * passes * tokens * element
    backward = activation_elements(
        blocks, adapter=config.lora is not None, checkpointing=config.gradient_checkpointing
    )
    yield Item(
        "denoiser's activations",
        {"rollout": forward * blocks.passing, "update": forward * backward},
    )
    yield Item("decoder's activations", {"decode": decode_peak(model, min(rows, samples))})
    video = config.video
    pixels = video.num_frames * 3 * video.height * video.width * FLOAT32
    yield Item("videos", {"host": samples * pixels})


def _estimate_vlm(config: PipelineConfig) -> Estimate:
    fields = config.model_dump()
    dtype = getattr(torch, fields.get("precision", "float32"))
    module = meta_vlm(config.model, dtype=dtype)
    parameters = {"model": count([module])}
    if config.lora:
        add_lora(module, config.lora, seed=0)
    parameters["trained"] = sum(p.numel() for p in trainable(module).values())
    items = [
        everywhere("model", size(module.parameters())),
        *training_items(module, config),
        *_vlm_activations(config, module, fields["max_new_tokens"], dtype.itemsize),
        *reward_items(config),
    ]
    return Estimate(tuple(items), parameters)


def _vlm_activations(
    config: PipelineConfig, module: PreTrainedModel, new_tokens: int, element: int
) -> Iterable[Item]:
    """Prompts run once a group; every answer holds keys and values of its prompt and itself."""
    network = module.config.to_dict()
    text, vision = network["text_config"], network["vision_config"]
    rows = config.train.rows
    prompts, prompt = ceil(rows / config.group_size), PROMPT_TOKENS + IMAGE_TOKENS
    heads = 2 * text["num_key_value_heads"] * text["hidden_size"] // text["num_attention_heads"]
    cache = rows * (prompt + new_tokens) * heads * text["num_hidden_layers"] * element
    yield Item("keys and values", {"rollout": cache, "update": cache})
    blocks = Blocks(
        text["num_hidden_layers"], text["hidden_size"], text["intermediate_size"], gated=True
    )
    backward = activation_elements(blocks, adapter=config.lora is not None, checkpointing=False)
    forward = max(prompts * prompt, rows) * element * blocks.passing
    tokens = (prompts * prompt + rows * new_tokens) * element
    yield Item("activations, language", {"rollout": forward, "update": tokens * backward})
    tower = vision_blocks(vision)
    seen = tower.passing
    if any(name.startswith("model.visual.") for name in trainable(module)):
        seen = activation_elements(tower, adapter=config.lora is not None, checkpointing=False)
    patches = prompts * IMAGE_TOKENS * vision["spatial_merge_size"] ** 2 * element
    yield Item(
        "activations, vision", {"rollout": patches * tower.passing, "update": patches * seen}
    )
    logits = 3 * text["vocab_size"] * FLOAT32
    chunk = min(rows * new_tokens, LOGIT_ROWS)
    yield Item("logits", {"rollout": rows * logits, "update": chunk * logits})


def vision_blocks(vision: Mapping) -> Blocks:
    """The vision tower of Qwen2.5-VL, or of Qwen2-VL, which names its width `embed_dim`."""
    if "embed_dim" in vision:
        width = vision["embed_dim"]
        return Blocks(vision["depth"], width, int(vision["mlp_ratio"] * width))
    return Blocks(vision["depth"], vision["hidden_size"], vision["intermediate_size"], gated=True)
