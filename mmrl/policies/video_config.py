"""Config sections that every video pipeline shares, and the policy they describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.config import Config, ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.transitions import TransitionKind, Variant
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import VideoSize
from mmrl.types import Turn

Scales = Callable[[Float[Tensor, " N1"]], Float[Tensor, " N"]]


class VideoConfig(Config):
    """Size of the videos the model makes."""

    num_frames: int = Field(ge=1)
    height: int = Field(ge=8)
    width: int = Field(ge=8)
    fps: float = Field(default=16.0, gt=0)
    max_sequence_length: int = Field(default=226, ge=1)
    """Text tokens, padded."""


class SamplingConfig(Config):
    """Noise levels, transition and guidance of the rollout, and of evaluation."""

    transition: TransitionKind
    num_steps: int = Field(ge=2)
    eta: float = Field(ge=0)
    """Strength of the stochastic part; 0 is the deterministic solver."""
    shift: float | None = Field(default=5.0, gt=0)
    """Schedule shift; null takes the noise levels of the model's own scheduler."""
    guidance: float = Field(default=1.0, ge=0)
    variant: Variant = "fixed"
    shared_first_noise: bool = False
    eval_steps: int | None = Field(default=None, ge=1)
    trained_steps: Literal["all", "window", "random"] = "all"
    window_start: int = Field(default=0, ge=0)
    trained_count: int | None = Field(default=None, ge=1)
    """How many steps are stochastic and trained, for `window` and `random`."""

    @model_validator(mode="after")
    def _has_something_to_train(self) -> SamplingConfig:
        if self.transition == "ode" or self.eta == 0:
            raise ConfigError(
                "every step is deterministic, so the ratio of this loss says nothing; "
                "choose sage, flow, dance, cps or bridge with eta > 0",
                key="transition",
            )
        if self.trained_steps != "all" and self.trained_count is None:
            raise ConfigError(
                f"trained_steps '{self.trained_steps}' needs a count", key="trained_count"
            )
        return self

    def plan(self, turn: Turn) -> StepPlan:
        """Which steps of one rollout are stochastic and trained."""
        if self.trained_steps == "window":
            return StepPlan.window(self.num_steps, self.window_start, self.trained_count or 1)
        if self.trained_steps == "random":
            generator = torch.Generator().manual_seed(turn.seed)
            return StepPlan.random_k(self.num_steps, self.trained_count or 1, generator)
        return StepPlan.all(self.num_steps)


def build_video_policy(
    model: str,
    video: VideoConfig,
    sampling: SamplingConfig,
    *,
    rows: int,
    precision: Literal["float32", "bfloat16"],
    scales: Scales | None,
) -> VideoPolicy:
    """A diffusers pipeline as a policy; its transformer learns whole until LoRA is added."""
    from mmrl.models.pipeline import load_video_model

    size = VideoSize(video.num_frames, video.height, video.width, video.max_sequence_length)
    loaded = load_video_model(model, size, dtype=getattr(torch, precision))
    chosen = Sampling(
        kind=sampling.transition,
        num_steps=sampling.num_steps,
        eta=sampling.eta,
        shift=sampling.shift,
        guidance=sampling.guidance,
        variant=sampling.variant,
        shared_first_noise=sampling.shared_first_noise,
        fps=video.fps,
        eval_steps=sampling.eval_steps,
    )
    return VideoPolicy(loaded, chosen, sampling.plan, rows, scales)
