"""A video diffusion model as a policy: every denoising step is an action."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sampler import Path as SamplePath
from mmrl.diffusion.sampler import Schedule, sample_path, step_transition
from mmrl.diffusion.transitions import TransitionKind, Variant
from mmrl.ops.weights import per_decision
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.denoise import DenoiseReplay, join_steps, step_stats
from mmrl.policies.noise import GroupNoise
from mmrl.policies.solvers import unipc
from mmrl.policies.video_model import Conditioning, ImageReader, Latents, VideoModel, guide
from mmrl.types import (
    FIRST_TURN,
    ActionKind,
    Actions,
    Prompt,
    Rollout,
    Turn,
    VideoSample,
    concat_stats,
)


@dataclass(frozen=True)
class Sampling:
    """How videos are drawn: the noise levels, the transition, the guidance."""

    kind: TransitionKind
    num_steps: int
    eta: float
    shift: float | None
    """Schedule shift; None takes the noise levels of the model's own scheduler."""
    guidance: float = 1.0
    """out = empty + guidance (given - empty) as one batch; 1 needs no second pass."""
    variant: Variant = "fixed"
    shared_first_noise: bool = False
    """All samples of a prompt start from one noise (DanceGRPO)."""
    fps: float = 8.0
    eval_steps: int | None = None
    """Steps of the deterministic solver in `sample`; None: num_steps."""
    solver: Literal["euler", "unipc"] = "euler"
    """Solver of `sample`. Rollouts take first-order steps, whose law is known."""


@dataclass
class VideoPolicy:
    """Rollout and replay through one function of (x, step), so equal weights give equal bits."""

    model: VideoModel
    sampling: Sampling
    plan: Callable[[Turn], StepPlan]
    """Which steps are stochastic and trained, the same on every rank."""
    rows: int
    """Samples of one forward pass, in rollout and replay alike."""
    scales: Callable[[Float[Tensor, " N1"]], Float[Tensor, " N"]] | None = None
    """Multiplier of each step's loss from the noise levels (SAGE's equalizer)."""
    decision_chunk: int | None = 1
    """Steps of one forward and backward pass in training: memory is that of one step."""
    eval_model: VideoModel | None = None
    """The same network at the size of evaluation; None: the size of training."""
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.module = self.model.module

    def to(self, device: torch.device) -> None:
        """Move every part of the model."""
        self.model.to(device)

    def schedule(self, num_steps: int) -> Schedule:
        """Noise levels and timesteps."""
        return self.model.schedule(num_steps, self.sampling.shift)

    @torch.no_grad()
    def rollout(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        turn: Turn = FIRST_TURN,
        ready: Ready = no_one_waits,
    ) -> Rollout:
        """Paths of G videos per prompt, their decoded videos, and the trained transitions."""
        schedule = self.schedule(self.sampling.num_steps)
        plan = self.plan(turn)
        steps = plan.trained_steps()
        asked = [prompt for prompt in prompts for _ in range(group_size)]
        replays, behavior, samples = [], [], []
        for told, path in self.paths(prompts, group_size, seeds, schedule, plan):
            samples += self.finished(asked[len(samples) :], path, ready)
            replays.append(DenoiseReplay.of(path, told, steps))
            behavior.append(
                join_steps([step_stats(path.states[s + 1], path.transitions[s]) for s in steps])
            )
        replay = DenoiseReplay.concat(replays)
        return Rollout(
            samples=samples,
            group_size=group_size,
            behavior={"denoise": concat_stats(behavior)},
            weights={"denoise": per_decision(torch.ones_like(replay.before[:, :, 0, 0, 0, 0]))},
            counts={"denoise": torch.full((len(samples),), float(len(steps)))},
            replay=replay,
            scales=self._scales(schedule, steps),
            drawn={"denoise": replay.after.flatten(2)},
        )

    def evaluate(self, batch: Rollout) -> Actions:
        """Mean, std and log-prob of the trained transitions under the weights of now."""
        replay = batch.replay
        assert isinstance(replay, DenoiseReplay)
        schedule = self.schedule(self.sampling.num_steps)
        stats = []
        for t, step in enumerate(replay.steps):
            before = replay.before[:, t]
            found = self.predict(before, float(schedule.timesteps[step]), replay.conditioning)
            drawn = step_transition(
                self.sampling.kind,
                before,
                found,
                schedule.levels,
                step,
                eta=self.sampling.eta,
                variant=self.sampling.variant,
                output=self.model.output,
            )
            stats.append(step_stats(replay.after[:, t], drawn))
        return {"denoise": join_steps(stats)}

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[VideoSample]:
        """One video per prompt by the deterministic solver from the seed's first noise."""
        if self.eval_model is not None:
            return replace(self, model=self.eval_model, eval_model=None).sample(prompts, seeds)
        schedule = self.schedule(self.sampling.eval_steps or self.sampling.num_steps)
        if self.sampling.solver == "unipc":
            return self.as_samples(prompts, self._unipc(prompts, seeds))
        plan = StepPlan.deterministic(len(schedule))
        found = self.paths(prompts, 1, seeds, schedule, plan)
        videos = [video for _, path in found for video in self.decode(path.states[-1])]
        return self.as_samples(prompts, videos)

    def _unipc(
        self, prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> list[Float[Tensor, "F 3 H W"]]:
        steps = self.sampling.eval_steps or self.sampling.num_steps
        videos = []
        for part in chunks(len(prompts), self.rows):
            told = self.tell(prompts[part], 1)
            noise = GroupNoise(seeds[part], 1, self.model.latent_shape).first(shared=False)
            predict = partial(self.predict, conditioning=told)
            x = noise.to(told.device)
            videos += self.decode(unipc(predict, x, steps, self.sampling.shift, self.model.output))
        return videos

    def save_pretrained(self, folder: Path) -> None:
        """The pipeline folder, or the LoRA folder that `load_lora_weights` reads."""
        self.model.save_pretrained(folder)

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        """The guided output: both halves of the guidance in one batch."""
        guidance = self.sampling.guidance
        if guidance == 1:
            return self.model.predict(x, timestep, conditioning)
        empty = conditioning.joined(self.model.encode([""]).repeat(len(x)))
        both = self.model.predict(
            torch.cat([x, x]), timestep, Conditioning.concat([empty, conditioning])
        )
        without, given = both.chunk(2)
        return guide(self.model, without, given, guidance)

    def tell(self, prompts: Sequence[Prompt], group_size: int) -> Conditioning:
        """What the network is told of each prompt, once for every member of its group."""
        told = self.model.encode([prompt.text for prompt in prompts])
        if isinstance(self.model, ImageReader):
            told = told.joined(self.model.encode_images(first_images(prompts)))
        return told.repeat(group_size)

    def paths(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        schedule: Schedule,
        plan: StepPlan,
    ) -> Iterator[tuple[Conditioning, SamplePath]]:
        """Whole groups at a time, about `rows` samples each: what was told, and the path drawn."""
        for part in chunks(len(prompts), max(1, self.rows // group_size)):
            told = self.tell(prompts[part], group_size)
            noise = GroupNoise(seeds[part], group_size, self.model.latent_shape)
            yield told, self._path(schedule, plan, told, noise)

    def _path(
        self, schedule: Schedule, plan: StepPlan, conditioning: Conditioning, noise: GroupNoise
    ) -> SamplePath:
        device = conditioning.device
        return sample_path(
            lambda x, step: self.predict(x, float(schedule.timesteps[step]), conditioning),
            noise.first(self.sampling.shared_first_noise).to(device),
            schedule.levels,
            kind=self.sampling.kind,
            eta=self.sampling.eta,
            stochastic=plan.stochastic,
            noise=lambda step: noise.draw().to(device),
            variant=self.sampling.variant,
            output=self.model.output,
        )

    def decode(self, latents: Latents) -> list[Float[Tensor, "F 3 H W"]]:
        """Videos in host memory, `rows` at a time."""
        return [
            video for part in latents.split(self.rows) for video in self.model.decode(part).cpu()
        ]

    def finished(
        self, prompts: Sequence[Prompt], path: SamplePath, ready: Ready = no_one_waits
    ) -> list[VideoSample]:
        """The decoded ends of a path, which answer the first of `prompts`; `ready` gets them."""
        ends = path.states[-1]
        samples = self.as_samples(prompts[: len(ends)], self.decode(ends))
        ready(samples)
        return samples

    def as_samples(
        self, prompts: Sequence[Prompt], videos: Sequence[Float[Tensor, "F 3 H W"]]
    ) -> list[VideoSample]:
        fps = self.sampling.fps
        return [VideoSample(p, v, fps) for p, v in zip(prompts, videos, strict=True)]

    def _scales(
        self, schedule: Schedule, steps: tuple[int, ...]
    ) -> dict[ActionKind, Float[Tensor, " T"]]:
        if self.scales is None:
            return {}
        device = next(self.module.parameters()).device
        return {"denoise": self.scales(schedule.levels)[list(steps)].float().to(device)}


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` items."""
    return (slice(start, start + size) for start in range(0, count, size))


def first_images(prompts: Sequence[Prompt]) -> list[Path]:
    """The picture that each video starts from; ValueError where a prompt has none."""
    for prompt in prompts:
        if not prompt.images:
            raise ValueError(f"this model starts from an image, and '{prompt.text}' has none")
    return [prompt.images[0] for prompt in prompts]
