"""(P, G) rewards -> (P, G) advantages. A NaN reward leaves its group's statistics and gets 0."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NOISE = 1e-6
"""A spread below this share of the largest reward is rounding of float32, and no difference."""


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

    Rewards that are equal up to rounding give exactly 0, and so does a group with fewer than two
    scored samples.
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


def batch_scaled(
    rewards: Float[Tensor, "P G"],
    *,
    std: Literal["sample", "population"] = "population",
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """A = (R - mean of the group) / (std + eps), the std of all scored rewards.

    The std is that of the rewards themselves, so groups that differ from each other make every
    advantage small (Flow-GRPO's release, arXiv:2505.05470, and DiffusionNFT's, arXiv:2509.16117,
    with the population std; ScaleRL, arXiv:2510.13786, with the sample's).
    """
    scored = rewards[~rewards.isnan()]
    correction = 1 if std == "sample" else 0
    spread = scored.std(correction=correction) if len(scored) > correction else 0.0
    return centered(rewards) / (spread + eps)


def best_of_group(rewards: Float[Tensor, "P G"], *, eps: float = 1e-6) -> Float[Tensor, "P G"]:
    """A = (R - second best) / (std + eps) for the best of a group, 0 for all others and at a tie.

    Only what makes a group's best better is learned: pass@k is the reward (EasyR1's `grpo_passk`).
    The std is the sample's.
    """
    valid, count = _valid(rewards)
    best = torch.where(valid, rewards, -torch.inf).topk(2, dim=1)
    lead = best.values[:, :1] - best.values[:, 1:]
    first = torch.zeros_like(valid).scatter(1, best.indices[:, :1], value=True)
    variance = centered(rewards).square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
    chosen = first & _usable(rewards, valid)
    return torch.where(chosen, lead / (variance.sqrt() + eps), 0.0)


def soften_negatives(
    advantages: Float[Tensor, "P G"],
    success_rate: Float[Tensor, " P"],
    *,
    initial: float,
    slope: float,
    variant: Literal["paper", "released"] = "paper",
) -> Float[Tensor, "P G"]:
    """A' = A where A >= 0, else lambda A; lambda = min(initial + slope p, 1), p a group's success.

    GUI-Libra's SNGS (arXiv:2602.22190): other actions than the recorded one may be right too, so a
    "wrong" sample says less than a right one. `paper` refuses a lambda that is below 0 for some p
    in [0, 1]; `released` clamps it at 0. A NaN success rate (nothing scored) leaves its group.
    """
    check_softening(initial, slope, variant)
    if bool(((success_rate < 0) | (success_rate > 1)).any()):
        raise ValueError("a success rate lies outside [0, 1]")
    if advantages.shape[1] < 2:
        raise ValueError("a group of 1 has no advantage; need >= 2")
    scale = (initial + slope * success_rate).clamp(0.0, 1.0).nan_to_num(nan=1.0)
    return torch.where(advantages < 0, scale[:, None] * advantages, advantages)


def check_softening(initial: float, slope: float, variant: Literal["paper", "released"]) -> None:
    """ValueError unless both are finite and, for `paper`, lambda >= 0 for all p in [0, 1]."""
    if not (math.isfinite(initial) and math.isfinite(slope)):
        raise ValueError(f"initial and slope must be finite, got {initial} and {slope}")
    lowest = min(initial, initial + slope)
    if lowest < 0 and variant == "paper":
        raise ValueError(
            f"initial {initial} and slope {slope} give a factor of {lowest:g}, which would reward "
            "wrong samples; raise initial"
        )


def _valid(rewards: Float[Tensor, "P G"]) -> tuple[Bool[Tensor, "P G"], Float[Tensor, "P 1"]]:
    valid = ~rewards.isnan()
    return valid, valid.sum(1, keepdim=True).to(rewards.dtype).clamp(min=1)


def _usable(rewards: Float[Tensor, "P G"], valid: Bool[Tensor, "P G"]) -> Bool[Tensor, "P G"]:
    """Scored samples of groups that hold two scores further apart than rounding puts them."""
    low = torch.where(valid, rewards, torch.inf).amin(1, keepdim=True)
    high = torch.where(valid, rewards, -torch.inf).amax(1, keepdim=True)
    largest = torch.where(valid, rewards, 0.0).abs().amax(1, keepdim=True)
    return valid & (high - low > NOISE * largest)
