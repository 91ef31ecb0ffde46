"""Peak memory of a video run."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# (configs of diffusers type their fields loosely)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

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
    reward_items,
    size,
    training_items,
)
from mmrl.models.meta import PeakBytes, meta_video_model
from mmrl.models.pipeline import denoiser_tokens
from mmrl.models.text_cache import is_text_part
from mmrl.policies.lora import add_lora
from mmrl.policies.video_model import VideoModel
from mmrl.trust_region.weights import trainable
from mmrl.video_recipe import VideoPipelineConfig


def estimate_video(config: VideoPipelineConfig) -> Estimate:
    """Parts of the pipeline, gradients, paths, denoiser and decoder."""
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


def part_item(name: str, part: nn.Module, config: VideoPipelineConfig) -> Item:
    """A part of a pipeline: on the device always, or in host memory between its visits."""
    waits = config.offload_text_encoder and is_text_part(name)
    found = size(part.parameters())
    return Item(name, {"host": found}) if waits else everywhere(name, found)


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
