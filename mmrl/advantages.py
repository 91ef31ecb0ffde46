"""(P, G) rewards -> (P, G) advantages. A NaN reward leaves its group's statistics and gets 0."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def centered(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """A = R - mean of the group (Dr. GRPO, arXiv:2503.20783)."""
    valid, count = _valid(rewards)
    mean = torch.where(valid, rewards, 0.0).sum(1, keepdim=True) / count
    return torch.where(_usable(rewards, valid), rewards - mean, 0.0)


def group_normalized(
    rewards: Float[Tensor, "P G"],
    *,
    std: Literal["sample", "population"] = "sample",
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """A = (R - mean) / (std + eps) over the group (GRPO, arXiv:2402.03300, section 4.1.2).

    Equal rewards give exactly 0, and so does a group with fewer than two scored samples.
    """
    _, count = _valid(rewards)
    deviation = centered(rewards)
    divisor = count - 1 if std == "sample" else count
    variance = deviation.square().sum(1, keepdim=True) / divisor.clamp(min=1)
    return deviation / (variance.sqrt() + eps)


def leave_one_out(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """A_i = R_i - mean of the others = n / (n - 1) (R_i - mean) (RLOO, arXiv:2402.14740)."""
    _, count = _valid(rewards)
    return centered(rewards) * count / (count - 1).clamp(min=1)


def batch_normalized(
    rewards: Float[Tensor, "P G"],
    *,
    std: Literal["sample", "population"] = "sample",
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """A = (R - mean) / (std + eps) over all P G samples: the last step of GDPO (2601.05242)."""
    return group_normalized(rewards.reshape(1, -1), std=std, eps=eps).view(rewards.shape)


def _valid(rewards: Float[Tensor, "P G"]) -> tuple[Bool[Tensor, "P G"], Float[Tensor, "P 1"]]:
    valid = ~rewards.isnan()
    return valid, valid.sum(1, keepdim=True).to(rewards.dtype).clamp(min=1)


def _usable(rewards: Float[Tensor, "P G"], valid: Bool[Tensor, "P G"]) -> Bool[Tensor, "P G"]:
    """Scored samples of groups that hold at least two different scores."""
    low = torch.where(valid, rewards, torch.inf).amin(1, keepdim=True)
    high = torch.where(valid, rewards, -torch.inf).amax(1, keepdim=True)
    return valid & (high > low)
