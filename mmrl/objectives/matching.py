"""What objectives of the forward process share: velocities compared at noised clean latents.

A policy of this kind noises a finished sample x0 to x = (1 - sigma) x0 + sigma noise and predicts
the velocity there. `ActionStats.mean` is that velocity, `log_probs` = -mean_d (mean - target)^2.
Its `scale` is sqrt(1/2), so that the KL to an anchor is mean_d (mean - anchor)^2: the pulls to
reference and EMA that these methods name are coefficients of the trust region.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmrl.types import ActionStats, Replay, Rollout


@runtime_checkable
class MatchingReplay(Replay, Protocol):
    """The record of a rollout that was noised again for training."""

    @property
    def target(self) -> Float[Tensor, "B T D"]:
        """noise - x0, the velocity of the straight path."""
        ...

    @property
    def sigmas(self) -> Float[Tensor, "B T"]:
        """Noise level of each decision, in [0, 1]."""
        ...


def matching_replay(batch: Rollout) -> MatchingReplay:
    """The batch's replay, where it is one of velocity matching without step scales."""
    if not isinstance(batch.replay, MatchingReplay):
        raise ValueError(
            "this objective needs a replay with `target` and `sigmas`, got"
            f" {type(batch.replay).__name__}; use a policy that noises finished samples"
        )
    if "denoise" in batch.scales:
        raise ValueError("step scales belong to sampled transitions; switch them off for matching")
    return batch.replay


def velocity(stats: ActionStats) -> Float[Tensor, "B T D"]:
    """The velocity of a policy that reports one."""
    if stats.mean is None:
        raise ValueError("this objective compares velocities, but the policy reports no mean")
    return stats.mean


def difference(
    first: Float[Tensor, "B T D"], second: Float[Tensor, "B T D"], live: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """first - second in float32 or wider; 0 where not live, whatever stands there."""
    work = torch.promote_types(first.dtype, torch.float32)
    return torch.where(live[..., None], first.to(work) - second, 0.0)
