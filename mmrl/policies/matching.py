"""A flow model trained on its forward process: finished samples are noised again and matched.

The rollout is deterministic, or read from files, so any solver will do. A decision is one noise
level: `mean` is the velocity that the network predicts there, `log_probs` = -mean_d (v - target)^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.diffusion.plan import StepPlan
from mmrl.ops.weights import per_decision
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.noise import GroupNoise
from mmrl.policies.video import VideoPolicy
from mmrl.policies.video_model import Conditioning, Latents
from mmrl.types import FIRST_TURN, Actions, ActionStats, Prompt, Rollout, Turn, VideoSample

Clean = tuple[Conditioning, Latents, Sequence[VideoSample]]
Source = Callable[[VideoPolicy, Sequence[Prompt], int, Sequence[int]], Iterator[Clean]]
"""Whole groups of finished samples: what was told, clean latents, videos."""
SQUARED_GAP_STD = 0.5**0.5
"""With this std the closed-form KL of two Gaussians is mean_d (mean - anchor)^2."""


@dataclass(frozen=True)
class ForwardReplay:
    """Finished samples, noised to T levels."""

    noised: Float[Tensor, "B T C f h w"]
    target: Float[Tensor, "B T D"]
    """noise - data."""
    sigmas: Float[Tensor, "B T"]
    """The same for all rows."""
    conditioning: Conditioning

    def rows(self, part: slice) -> ForwardReplay:
        """The same levels for some rows."""
        told = self.conditioning.rows(part)
        return ForwardReplay(self.noised[part], self.target[part], self.sigmas[part], told)

    def decisions(self, part: slice) -> ForwardReplay:
        """Some of the levels for the same rows."""
        noised, target, sigmas = (x[:, part] for x in (self.noised, self.target, self.sigmas))
        return ForwardReplay(noised, target, sigmas, self.conditioning)


@dataclass
class MatchingPolicy:
    """The forward process of a flow model as a policy."""

    video: VideoPolicy
    source: Source
    num_levels: int
    """Noise levels that one rollout is trained at, drawn from the sampling grid."""
    shared_noise: bool = False
    """Whether a group is noised alike, as pairs of Diffusion-DPO are."""
    decision_chunk: int | None = 1
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        if self.video.model.output != "velocity":
            raise ConfigError(
                f"predicts {self.video.model.output}, and this method matches velocities: "
                "choose a flow model",
                key="model",
            )
        steps = self.video.sampling.num_steps
        if not 1 <= self.num_levels <= steps:
            raise ConfigError(f"need 1 .. {steps} of the grid", key="num_levels")
        self.module = self.video.module

    def to(self, device: torch.device) -> None:
        """Move every part of the model."""
        self.video.to(device)

    @torch.no_grad()
    def rollout(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        turn: Turn = FIRST_TURN,
        ready: Ready = no_one_waits,
    ) -> Rollout:
        """G finished videos per prompt, and their latents noised to `num_levels` levels."""
        sigmas = self._levels(turn)
        told, clean, samples = [], [], []
        for part in self.source(self.video, prompts, group_size, seeds):
            told.append(part[0])
            clean.append(part[1])
            samples += part[2]
            ready(part[2])
        noise = GroupNoise([seed + 1 for seed in seeds], group_size, self.video.model.latent_shape)
        replay = _noise(torch.cat(clean), sigmas, noise, Conditioning.concat(told), self)
        return Rollout(
            samples=samples,
            group_size=group_size,
            behavior={},
            weights={"denoise": per_decision(torch.ones_like(replay.sigmas))},
            counts={"denoise": torch.full((len(samples),), float(replay.sigmas.shape[1]))},
            replay=replay,
        )

    def evaluate(self, batch: Rollout) -> Actions:
        """Velocity and negative matching error at every level, under the weights of now."""
        replay = batch.replay
        assert isinstance(replay, ForwardReplay)
        levels = replay.sigmas[0].tolist()
        told = replay.conditioning
        velocities = [
            self.video.predict(replay.noised[:, t], 1000 * sigma, told).flatten(1)
            for t, sigma in enumerate(levels)
        ]
        found = torch.stack(velocities, dim=1)
        errors = (found - replay.target).square().mean(-1)
        return {"denoise": ActionStats(-errors, found, torch.full_like(errors, SQUARED_GAP_STD))}

    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[VideoSample]:
        """One video per prompt by the deterministic solver."""
        return self.video.sample(prompts, seeds)

    def save_pretrained(self, folder: Path) -> None:
        """The pipeline folder, or the LoRA folder."""
        self.video.save_pretrained(folder)

    def _levels(self, turn: Turn) -> list[float]:
        grid = self.video.schedule(self.video.sampling.num_steps).levels[:-1]
        generator = torch.Generator().manual_seed(turn.seed)
        chosen = torch.randperm(len(grid), generator=generator)[: self.num_levels]
        return grid[chosen.sort().values].tolist()


def generated(
    policy: VideoPolicy, prompts: Sequence[Prompt], group_size: int, seeds: Sequence[int]
) -> Iterator[Clean]:
    """Videos that the policy draws itself with its deterministic solver."""
    schedule = policy.schedule(policy.sampling.num_steps)
    plan = StepPlan.deterministic(len(schedule))
    rows = [prompt for prompt in prompts for _ in range(group_size)]
    for told, path in policy.paths(prompts, group_size, seeds, schedule, plan):
        samples = policy.finished(rows, path)
        rows = rows[len(samples) :]
        yield told, path.states[-1], samples


def _noise(
    clean: Latents,
    sigmas: Sequence[float],
    noise: GroupNoise,
    told: Conditioning,
    policy: MatchingPolicy,
) -> ForwardReplay:
    drawn = [noise.first(policy.shared_noise).to(clean) for _ in sigmas]
    pairs = list(zip(sigmas, drawn, strict=True))
    noised = torch.stack([(1 - s) * clean + s * eps for s, eps in pairs], dim=1)
    target = torch.stack([(eps - clean).flatten(1) for eps in drawn], dim=1)
    levels = torch.tensor(sigmas, dtype=clean.dtype, device=clean.device)
    return ForwardReplay(noised, target, levels.expand(len(clean), -1), told)
