"""Wan2.1-1.3B's shapes with random weights, and the run of `gpu_video` on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mmrl.torchvision_fix  # noqa: F401
from mmrl.config import apply_overrides, read_yaml
from mmrl.train.loop import load_config
from mmrl.types import VideoSample
from mmrl.video_recipe import VideoPipelineConfig

CONFIG = Path("configs/sage_grpo/wan2_1_1_3b.yaml")
REWARD = "smoothness"


@dataclass(frozen=True)
class Case:
    """The networks' shapes, and the sizes of the videos."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    frames: tuple[int, ...]
    """To try, most first."""
    height: int
    width: int
    texts: int
    """Text tokens, padded."""
    steps: int
    matrix: int
    """Side of the matrices of the measured product."""
    repeats: int
    """Training steps that count, after one to warm up."""


FULL = Case(
    transformer={
        "num_layers": 30,
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "ffn_dim": 8960,
        "text_dim": 4096,
    },
    vae={},
    frames=(81, 49, 33, 17, 5),
    height=480,
    width=832,
    texts=512,
    steps=10,
    matrix=8192,
    repeats=2,
)
TINY = Case(
    transformer={
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "ffn_dim": 64,
        "text_dim": 32,
        "freq_dim": 16,
        "rope_max_seq_len": 32,
    },
    vae={
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [True],
        "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
        "scale_factor_temporal": 2,
        "scale_factor_spatial": 2,
    },
    frames=(5, 3),
    height=16,
    width=16,
    texts=8,
    steps=3,
    matrix=128,
    repeats=1,
)


def write_model(folder: Path, case: Case, device: torch.device) -> None:
    """A Wan pipeline with random weights, as `from_pretrained` reads it."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from pipelines.tiny.wan import build_tokenizer

    tokenizer = build_tokenizer()
    texts = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=case.transformer["text_dim"],
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
    )
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(**case.transformer)
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder": UMT5EncoderModel(texts),
        "vae": AutoencoderKLWan(**case.vae),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
        "transformer": transformer,
    }
    WanPipeline(**parts).save_pretrained(folder, safe_serialization=True)


def config_of(
    case: Case, folder: Path, frames: int, changes: Sequence[str] = ()
) -> VideoPipelineConfig:
    """The config of real size, on the model in `folder`."""
    ours = [
        f"model={folder / 'model'}",
        f"output={folder / 'run'}",
        f"prompts={folder / 'prompts.jsonl'}",
        f"video={{num_frames: {frames}, height: {case.height}, width: {case.width}, "
        f"fps: 16, max_sequence_length: {case.texts}}}",
        f"sampling.num_steps={case.steps}",
        "sampling.trained_steps=random",
        "sampling.trained_count=2",
        "group_size=2",
        f"rewards={{{REWARD}: {{weight: 0.0}}, varied: {{path: {__file__}:varied}}}}",
        f"train={{steps: {case.repeats + 1}, prompts_per_step: 1, rows: 2, "
        "optimizer: {lr: 1.0e-4}}",
    ]
    config = load_config(apply_overrides(read_yaml(CONFIG), [*ours, *changes]))
    assert isinstance(config, VideoPipelineConfig) and config.lora is not None
    return config


def varied(sample: VideoSample) -> float:
    """A number that differs from video to video, so that there is a gradient."""
    return float(sample.video.double().mean() * 1e6 % 1)
