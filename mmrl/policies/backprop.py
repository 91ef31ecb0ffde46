"""A video model trained through its sampler and a differentiable reward (DRaFT, ReFL)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sampler import step_transition
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.video import VideoPolicy
from mmrl.policies.video_model import Conditioning, Latents
from mmrl.types import FIRST_TURN, Actions, ActionStats, Prompt, Rollout, Turn, VideoSample

Score = Callable[[Sequence[VideoSample]], Float[Tensor, " B"]]


@dataclass(frozen=True)
class TailReplay:
    """The states before the steps that gradients flow through."""

    before: Float[Tensor, "B C f h w"]
    conditioning: Conditioning
    prompts: Sequence[Prompt]
    """One a row."""

    def rows(self, part: slice) -> TailReplay:
        """Some rows."""
        return TailReplay(self.before[part], self.conditioning.rows(part), self.prompts[part])

    def decisions(self, part: slice) -> TailReplay:
        """There is one decision: the tail as a whole."""
        assert part == slice(0, 1)
        return self


@dataclass
class BackpropPolicy:
    """The last K steps of the deterministic sampler, decoded and scored with gradients.

    One decision a row; in the place of its log-prob stands the score itself, which is the log of
    the law that the reward defines, up to a constant.
    """

    video: VideoPolicy
    score: Score
    """The weighted sum of differentiable rewards."""
    num_steps: int
    """K: the last steps that gradients flow through."""
    decision_chunk: int | None = None
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
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
        """G videos per prompt, and the states that the last K steps start from."""
        schedule = self.video.schedule(self.video.sampling.num_steps)
        plan = StepPlan.deterministic(len(schedule))
        rows = [prompt for prompt in prompts for _ in range(group_size)]
        told, before, samples = [], [], []
        for part, path in self.video.paths(prompts, group_size, seeds, schedule, plan):
            told.append(part)
            before.append(path.states[len(schedule) - self.num_steps])
            samples += self.video.finished(rows[len(samples) :], path, ready)
        start = torch.cat(before)
        return Rollout(
            samples=samples,
            group_size=group_size,
            behavior={},
            weights={"denoise": torch.full((len(rows), 1), 1 / len(rows), device=start.device)},
            counts={"denoise": torch.ones(len(rows))},
            replay=TailReplay(start, Conditioning.concat(told), rows),
        )

    def evaluate(self, batch: Rollout) -> Actions:
        """The score of each row, differentiable in the weights through sampler and decoder."""
        replay = batch.replay
        assert isinstance(replay, TailReplay)
        latents = self._tail(replay.before, replay.conditioning)
        videos = self.video.model.decode(latents).cpu()
        found = self.score(self.video.as_samples(replay.prompts, list(videos)))
        return {"denoise": ActionStats(found[:, None].to(latents.device))}

    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[VideoSample]:
        """One video per prompt by the deterministic solver."""
        return self.video.sample(prompts, seeds)

    def save_pretrained(self, folder: Path) -> None:
        """The pipeline folder, or the LoRA folder."""
        self.video.save_pretrained(folder)

    def _tail(self, x: Latents, conditioning: Conditioning) -> Latents:
        schedule = self.video.schedule(self.video.sampling.num_steps)
        for step in range(len(schedule) - self.num_steps, len(schedule)):
            found = self.video.predict(x, float(schedule.timesteps[step]), conditioning)
            x = step_transition(
                "ode",
                x,
                found,
                schedule.levels,
                step,
                eta=0.0,
                variant="fixed",
                output=self.video.model.output,
            ).mean
        return x
