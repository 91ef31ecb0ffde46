"""What the pipelines of video (and image) diffusion share: their sections, their policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, model_validator

from mmrl.config import Config, ConfigError
from mmrl.policies.lora import add_lora
from mmrl.policies.video import VideoPolicy
from mmrl.policies.video_config import (
    GridConfig,
    Precision,
    Scales,
    VideoConfig,
    build_video_policy,
)
from mmrl.policies.video_model import TextCacheKind, TextOptions, VideoModel
from mmrl.recipe import PipelineConfig
from mmrl.trust_region.schedule import AnchorKind

RatioClip = Annotated[float, Field(gt=0, lt=1)]
"""Half-width of a ratio's band; below 1, so that the lower end 1 - clip stays a ratio."""
MaxAdvantage = Annotated[float, Field(gt=0)]
"""Advantages are cut to +- this."""


class ContextParallelConfig(Config):
    """The tokens of a sample on several processes: videos that one device cannot hold."""

    ulysses_degree: int = Field(ge=2)
    """Neighbouring processes that work on one sample."""


class VideoPipelineConfig(PipelineConfig):
    """The sections every video pipeline has besides its own `sampling`. Its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    video: VideoConfig
    precision: Precision = "float32"
    """Of the network; step mathematics is float32 at least."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    tile_vae: bool = False
    """Decode in tiles, one video at a time: less memory, faint seams."""
    text_cache: TextCacheKind | None = "memory"
    """Of text embeddings: `disk`, below $MMRL_CACHE/text, serves later runs too; null: none."""
    offload_text_encoder: bool = False
    """Text encoders wait in host memory, and visit the device for texts that are not cached."""
    embedded_guidance: float | None = Field(default=None, ge=0)
    """What a guidance-distilled network is told; null: its pipeline's default."""
    frame_rate: float | None = Field(default=None, gt=0)
    """Frames a second that LTX is told; null: its pipeline's default."""
    context_parallel: ContextParallelConfig | None = None
    """Several processes a sample; null: one."""
    compile: bool = False
    """torch.compile the network: a slow first step, faster ones after it."""
    eval_video: VideoConfig | None = None
    """Size of the held-out videos, to train small and evaluate large; null: `video`."""

    @model_validator(mode="after")
    def _offloads_what_is_cached(self) -> VideoPipelineConfig:
        if self.offload_text_encoder and self.text_cache is None:
            raise ConfigError(
                "without a cache the encoder would move for every batch; "
                "choose text_cache: memory or disk",
                key="offload_text_encoder",
            )
        return self

    def told(self) -> dict[str, float]:
        """Numbers that the network is told beside text and noise level, where the config says."""
        given = {"embedded_guidance": self.embedded_guidance, "frame_rate": self.frame_rate}
        return {name: value for name, value in given.items() if value is not None}


def build_policy(
    config: VideoPipelineConfig, sampling: GridConfig, *, scales: Scales | None = None
) -> VideoPolicy:
    """The model of the config as a policy, with its adapters if it has any."""
    from mmrl.models.pipeline import load_video_model

    check_folder(config)
    model = load_video_model(
        config.model,
        config.video.size(),
        dtype=getattr(torch, config.precision),
        tile_vae=config.tile_vae,
        texts=TextOptions(config.text_cache, config.offload_text_encoder),
        told=config.told(),
    )
    policy = build_video_policy(
        model, sampling, fps=config.video.fps, rows=config.train.rows, scales=scales
    )
    policy.eval_model = _at_eval_size(config, policy.model)
    if config.lora:
        add_lora(policy.module, config.lora, seed=config.train.seed)
    if config.gradient_checkpointing:
        policy.module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
    if config.context_parallel:
        from mmrl.models.parallel import check_split, split_tokens

        split_tokens(policy.model, config.context_parallel.ulysses_degree)
        check_split(policy.eval_model or policy.model, config.context_parallel.ulysses_degree)
    if config.compile:
        policy.module.compile()
    return policy


def check_folder(config: VideoPipelineConfig) -> None:
    """ConfigError for sizes that the model of a folder cannot make, from its config files alone.

    The adapter checks them as it is made; here its networks have shapes and no numbers, so that
    nobody waits for weights first. A hub id's are checked when it is loaded.
    """
    if Path(config.model).is_dir():
        from mmrl.models.meta import meta_video_model

        dtype, size = getattr(torch, config.precision), config.video.size()
        model = meta_video_model(config.model, size, dtype=dtype, told=config.told())
        _at_eval_size(config, model)


def _at_eval_size(config: VideoPipelineConfig, model: VideoModel) -> VideoModel | None:
    """The same parts at the size of `eval_video`, where the config has one."""
    from mmrl.models.pipeline import at_size

    if config.eval_video is None:
        return None
    try:
        return at_size(model, config.eval_video.size())
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"eval_{error.key}") from error


def processes_a_sample(config: PipelineConfig) -> int:
    """How many neighbouring processes draw and train the same samples."""
    if isinstance(config, VideoPipelineConfig) and config.context_parallel:
        return config.context_parallel.ulysses_degree
    return 1


def need_anchor(config: PipelineConfig, kind: AnchorKind, why: str) -> None:
    """ConfigError unless the anchor is switched on."""
    if kind not in config.trust_region.anchors():
        raise ConfigError(f"missing: {why}; a coefficient of 0 will do", key=f"trust_region.{kind}")
