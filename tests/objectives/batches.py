"""Rollouts with given tables, for objectives that take a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.types import ActionStats, Prompt, Rollout, VideoSample


@dataclass(frozen=True)
class PlainReplay:
    """A record without anything in it."""

    def rows(self, part: slice) -> PlainReplay:
        return self

    def decisions(self, part: slice) -> PlainReplay:
        return self


@dataclass(frozen=True)
class NoisedReplay:
    """Target velocities and noise levels."""

    target: Float[Tensor, "B T D"]
    sigmas: Float[Tensor, "B T"]

    def rows(self, part: slice) -> NoisedReplay:
        return NoisedReplay(self.target[part], self.sigmas[part])

    def decisions(self, part: slice) -> NoisedReplay:
        return NoisedReplay(self.target[:, part], self.sigmas[:, part])


def denoise_batch(
    behavior: ActionStats,
    *,
    group_size: int,
    weights: Tensor | None = None,
    replay: PlainReplay | NoisedReplay | None = None,
    scales: Tensor | None = None,
) -> Rollout:
    """One prompt a group; every decision counts alike unless weights are given."""
    shape = behavior.log_probs.shape
    frame = torch.zeros(1, 3, 1, 1)
    equal = torch.full(shape, 1 / shape.numel(), dtype=behavior.log_probs.dtype)
    return Rollout(
        samples=[VideoSample(Prompt(f"{row // group_size}"), frame) for row in range(shape[0])],
        group_size=group_size,
        behavior={"denoise": behavior},
        weights={"denoise": equal if weights is None else weights},
        counts={"denoise": torch.full((shape[0],), float(shape[1]))},
        replay=replay or PlainReplay(),
        scales={} if scales is None else {"denoise": scales},
    )
