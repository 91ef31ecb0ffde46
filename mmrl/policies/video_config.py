"""Config sections that every video pipeline shares, and the policy they describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.config import Config, ConfigError
from mmrl.diffusion.ddim import ddim_stds
from mmrl.diffusion.plan import LastStep, StepPlan, WindowDecay
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, Variant, step_stds
from mmrl.policies.video import Sampling, VideoPolicy
from mmrl.policies.video_model import VideoModel, VideoSize
from mmrl.types import FIRST_TURN, Turn

Precision = Literal["float32", "bfloat16"]
Scales = Callable[[Float[Tensor, " N1"]], Float[Tensor, " N"]]
READERS = {
    "trained_count": ("random", "window", "random_window", "progressive"),
    "window_start": ("window", "random_window"),
    "window_stop": ("random_window",),
    "window_hold": ("progressive",),
    "window_decay": ("progressive",),
}
"""Which `trained_steps` read a key of SamplingConfig."""


class VideoConfig(Config):
    """Size of the videos the model makes."""

    num_frames: int = Field(ge=1)
    height: int = Field(ge=8)
    width: int = Field(ge=8)
    fps: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    max_sequence_length: int = Field(default=226, ge=1)
    """Text tokens, padded."""

    def size(self) -> VideoSize:
        """The same for a model's adapter."""
        return VideoSize(self.num_frames, self.height, self.width, self.max_sequence_length)


class GridConfig(Config):
    """The steps from noise to video, and the guidance, of rollout and evaluation alike."""

    num_steps: int = Field(ge=2)
    shift: float | None = Field(default=5.0, gt=0, allow_inf_nan=False)
    """Schedule shift; null takes the noise levels of the model's own scheduler."""
    guidance: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    shared_first_noise: bool = False
    eval_steps: int | None = Field(default=None, ge=1)
    solver: Literal["euler", "unipc"] = "euler"
    """Of evaluation; rollouts take first-order steps, whose law is known."""

    @model_validator(mode="after")
    def _solver_has_its_shift(self) -> GridConfig:
        if self.solver == "unipc" and self.shift is None:
            raise ConfigError("unipc needs a shift", key="solver")
        return self


class SamplingConfig(GridConfig):
    """Noise levels, transition and guidance of the rollout, and of evaluation."""

    transition: TransitionKind | Literal["ddim"]
    """`ddim` is for models that predict epsilon or v; the others for flows."""
    eta: float = Field(ge=0, allow_inf_nan=False)
    """Strength of the stochastic part; 0 is the deterministic solver."""
    variant: Variant = "fixed"
    last_step: LastStep = "deterministic"
    """Releases also draw noise at the last step (`noisy`), or train it (`trained`)."""
    trained_steps: Literal["all", "window", "random", "random_window", "progressive"] = "all"
    trained_count: int | None = Field(default=None, ge=1)
    """How many steps are stochastic and trained, where not all are."""
    window_start: int = Field(default=0, ge=0)
    """First step of `window`, first start of `random_window`."""
    window_stop: int | None = Field(default=None, ge=1)
    """`random_window` lies before this step."""
    window_hold: int = Field(default=25, ge=1)
    """Training steps between two moves of the `progressive` window by one step."""
    window_decay: WindowDecay = "constant"
    """How the hold of the `progressive` window falls as it moves on."""

    @model_validator(mode="after")
    def _strategy_reads_its_keys(self) -> SamplingConfig:
        fields = type(self).model_fields
        for key, readers in READERS.items():
            if self.trained_steps in readers or getattr(self, key) == fields[key].default:
                continue
            raise ConfigError(
                f"trained_steps '{self.trained_steps}' does not read it; leave it out, or choose "
                f"trained_steps: {' or '.join(readers)}",
                key=key,
            )
        return self

    @model_validator(mode="after")
    def _has_something_to_train(self) -> SamplingConfig:
        if self.transition == "ode" or self.eta == 0:
            raise ConfigError(
                "every step is deterministic, so the ratio of this loss says nothing; "
                "choose sage, flow, dance, cps, bridge or ddim with eta > 0",
                key="transition",
            )
        if self.trained_steps != "all" and self.trained_count is None:
            raise ConfigError(
                f"trained_steps '{self.trained_steps}' needs a count", key="trained_count"
            )
        try:
            self.plan(FIRST_TURN)
        except ValueError as error:
            raise ConfigError(str(error), key="trained_steps") from error
        return self

    @model_validator(mode="after")
    def _noise_has_a_density(self) -> SamplingConfig:
        if self.transition == "cps" and self.eta > 1:
            raise ConfigError(f"a share of a right angle in cps, got {self.eta}", key="eta")
        if self.transition == "ddim" and self.eta > 1:
            raise ConfigError(
                f"0 .. 1 in ddim, 1 being ancestral sampling, got {self.eta}", key="eta"
            )
        if self.last_step != "deterministic" and self.trained_steps != "all":
            raise ConfigError("goes with trained_steps: all", key="last_step")
        if self.last_step == "trained" and self.transition in ("cps", "bridge", "ddim"):
            raise ConfigError(
                f"'{self.transition}' draws no noise at the last step", key="last_step"
            )
        return self

    @model_validator(mode="after")
    def _every_noise_is_finite(self) -> SamplingConfig:
        if self.shift is not None and self.transition != "ddim":
            self.stds(shifted_sigmas(self.num_steps, self.shift))
        return self

    def trainable_steps(self) -> tuple[int, ...]:
        """Steps that some rollout of a run trains: what is drawn from, or moved over."""
        match self.trained_steps:
            case "random" | "progressive":
                return tuple(range(self.num_steps - 1))
            case "random_window":
                return tuple(range(self.window_start, self.window_stop or self.num_steps - 1))
            case "all" | "window":
                return self.plan(FIRST_TURN).trained_steps()

    def stds(self, levels: Float[Tensor, " N1"]) -> Float[Tensor, " N"]:
        """Std of every step that some rollout draws noise at, 0 at the others.

        ConfigError where the variant has no finite one.
        """
        if self.transition == "ddim":
            return ddim_stds(levels, eta=self.eta)
        last = (self.num_steps - 1,) if self.last_step == "noisy" else ()
        steps = (*self.trainable_steps(), *last)
        try:
            return step_stds(
                self.transition, levels, eta=self.eta, variant=self.variant, steps=steps
            )
        except ValueError as error:
            raise ConfigError(str(error), key="variant") from error

    def plan(self, turn: Turn) -> StepPlan:
        """Which steps of one rollout are stochastic and trained, the same on every rank."""
        steps, count = self.num_steps, self.trained_count or 1
        generator = torch.Generator().manual_seed(turn.seed)
        match self.trained_steps:
            case "window":
                return StepPlan.window(steps, self.window_start, count)
            case "random":
                return StepPlan.random_k(steps, count, generator)
            case "random_window":
                first, stop = self.window_start, self.window_stop
                return StepPlan.random_window(steps, count, generator, first=first, stop=stop)
            case "progressive":
                return StepPlan.progressive_window(
                    steps,
                    count,
                    turn.step,
                    stride=1,
                    hold=self.window_hold,
                    decay=self.window_decay,
                )
            case "all":
                return StepPlan.all(steps, last=self.last_step)


def build_video_policy(
    loaded: VideoModel,
    sampling: GridConfig,
    *,
    fps: float,
    rows: int,
    scales: Scales | None = None,
) -> VideoPolicy:
    """A model as a policy; its transformer learns whole until LoRA is added.

    ConfigError where the transition does not fit what the model predicts.
    """
    chosen = Sampling(
        kind="ode",
        num_steps=sampling.num_steps,
        eta=0.0,
        shift=sampling.shift,
        guidance=sampling.guidance,
        shared_first_noise=sampling.shared_first_noise,
        fps=fps,
        eval_steps=sampling.eval_steps,
        solver=sampling.solver,
    )
    if not isinstance(sampling, SamplingConfig):
        return VideoPolicy(loaded, chosen, _no_plan, rows)
    if (sampling.transition == "ddim") != (loaded.output != "velocity"):
        fitting = "sage, flow, dance, cps or bridge" if loaded.output == "velocity" else "ddim"
        raise ConfigError(
            f"'{sampling.transition}' does not fit a model that predicts {loaded.output}; "
            f"choose {fitting}",
            key="sampling.transition",
        )
    kind = "bridge" if sampling.transition == "ddim" else sampling.transition
    chosen = replace(chosen, kind=kind, eta=sampling.eta, variant=sampling.variant)
    policy = VideoPolicy(loaded, chosen, sampling.plan, rows, scales)
    levels = policy.schedule(sampling.num_steps).levels
    try:
        sampling.stds(levels)
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"sampling.{error.key}") from error
    return policy


def _no_plan(turn: Turn) -> StepPlan:
    raise ValueError("this policy samples without noise and has no step to train")
