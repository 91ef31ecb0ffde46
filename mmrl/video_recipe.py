"""What the pipelines of video (and image) diffusion share: their sections, their policy."""

from __future__ import annotations

from mmrl.config import ConfigError
from mmrl.data.prompts import load_prompts
from mmrl.mixing import weighted_sum
from mmrl.policies.base import Policy
from mmrl.policies.lora import add_lora
from mmrl.policies.video import VideoPolicy
from mmrl.policies.video_config import (
    GridConfig,
    Precision,
    Scales,
    VideoConfig,
    build_video_policy,
)
from mmrl.recipe import Advantage, Combine, Objective, PipelineConfig, Recipe
from mmrl.trust_region.schedule import AnchorKind


class VideoPipelineConfig(PipelineConfig):
    """The sections every video pipeline has besides its own `sampling`."""

    video: VideoConfig
    precision: Precision = "float32"
    """Of the network; step mathematics is float32 at least."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    tile_vae: bool = False
    """Decode in tiles, one video at a time: less memory, faint seams."""
    compile: bool = False
    """torch.compile the network: a slow first step, faster ones after it."""
    eval_video: VideoConfig | None = None
    """Size of the held-out videos, to train small and evaluate large; null: `video`."""


def build_policy(
    config: VideoPipelineConfig, sampling: GridConfig, *, scales: Scales | None = None
) -> VideoPolicy:
    """The model of the config as a policy, with its adapters if it has any."""
    policy = build_video_policy(
        config.model,
        config.video,
        sampling,
        rows=config.train.rows,
        precision=config.precision,
        scales=scales,
        tile_vae=config.tile_vae,
    )
    if config.eval_video:
        from mmrl.models.pipeline import at_size

        policy.eval_model = at_size(policy.model, config.eval_video.size())
    if config.lora:
        add_lora(policy.module, config.lora, seed=config.train.seed)
    if config.gradient_checkpointing:
        policy.module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
    if config.compile:
        policy.module.compile()
    return policy


def video_recipe(
    config: VideoPipelineConfig,
    policy: Policy,
    *,
    advantage: Advantage,
    objective: Objective,
    combine: Combine | None = None,
    sample_from: AnchorKind | None = None,
) -> Recipe:
    """The parts that a method chose; rewards are summed with their weights unless it says how."""
    weights = config.rewards.weights
    return Recipe(
        policy=policy,
        prompts=load_prompts(config.prompts),
        group_size=config.group_size,
        rewards=config.rewards,
        combine=combine or (lambda scores, step: weighted_sum(scores, weights)),
        advantage=advantage,
        objective=objective,
        trust_region=config.trust_region,
        sample_from=sample_from,
    )


def need_anchor(config: PipelineConfig, kind: AnchorKind, why: str) -> None:
    """ConfigError unless the anchor is switched on."""
    if kind not in config.trust_region.anchors():
        raise ConfigError(f"missing: {why}; a coefficient of 0 will do", key=f"trust_region.{kind}")
