"""The record of a sampled path, and how likely its steps were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.sampler import Path as SamplePath
from mmrl.diffusion.transitions import Transition
from mmrl.ops.gaussian import log_prob
from mmrl.policies.video_model import Conditioning, Latents
from mmrl.types import ActionStats


@dataclass(frozen=True)
class DenoiseReplay:
    """Transitions of the trained steps: x[s] -> x[s+1] for every s of `steps`."""

    before: Float[Tensor, "B T C f h w"]
    after: Float[Tensor, "B T C f h w"]
    conditioning: Conditioning
    steps: tuple[int, ...]

    def rows(self, part: slice) -> DenoiseReplay:
        """The same steps for some rows."""
        told = self.conditioning.rows(part)
        return DenoiseReplay(self.before[part], self.after[part], told, self.steps)

    def decisions(self, part: slice) -> DenoiseReplay:
        """Some of the steps for the same rows."""
        before, after = self.before[:, part], self.after[:, part]
        return DenoiseReplay(before, after, self.conditioning, self.steps[part])

    @classmethod
    def of(
        cls, path: SamplePath, conditioning: Conditioning, steps: tuple[int, ...]
    ) -> DenoiseReplay:
        """The transitions of `steps` out of a sampled path."""
        before = torch.stack([path.states[s] for s in steps], dim=1)
        after = torch.stack([path.states[s + 1] for s in steps], dim=1)
        return cls(before, after, conditioning, steps)

    @classmethod
    def concat(cls, parts: Sequence[DenoiseReplay]) -> DenoiseReplay:
        """Rows of several chunks, one after the other."""
        return cls(
            torch.cat([part.before for part in parts]),
            torch.cat([part.after for part in parts]),
            Conditioning.concat([part.conditioning for part in parts]),
            parts[0].steps,
        )


def step_stats(after: Latents, drawn: Transition | None) -> ActionStats:
    """Likelihood of one transition, one decision wide."""
    assert drawn is not None
    mean, std = drawn.mean.flatten(1), drawn.std.expand(len(after))
    found = log_prob(after.flatten(1), mean, drawn.std)
    return ActionStats(found[:, None], mean[:, None], std[:, None])


def join_steps(stats: Sequence[ActionStats]) -> ActionStats:
    means = torch.cat([s.mean for s in stats if s.mean is not None], dim=1)
    scales = torch.cat([s.scale for s in stats if s.scale is not None], dim=1)
    return ActionStats(torch.cat([s.log_probs for s in stats], dim=1), means, scales)
