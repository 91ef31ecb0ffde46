"""Samples of one program, gradients of another: how far apart their log-probs are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Gap:
    """|log-prob of the trainer - log-prob that the sampler recorded|, in nats."""

    mean: float
    largest: float


def gap(
    log_probs: Float[Tensor, "B T"], recorded: Float[Tensor, "B T"], live: Bool[Tensor, "B T"]
) -> Gap:
    """Mean and largest over live tokens; 0 where there are none, NaN where one is NaN."""
    apart = (log_probs - recorded).abs()[live]
    if not apart.numel():
        return Gap(0.0, 0.0)
    return Gap(apart.mean().item(), apart.max().item())


def truncated_ratio(
    log_probs: Float[Tensor, "B T"],
    recorded: Float[Tensor, "B T"],
    live: Bool[Tensor, "B T"],
    *,
    cap: float,
) -> Float[Tensor, "B T"]:
    """min(pi_trainer / pi_sampler, cap) a token, 1 where none is live.

    Weights with which tokens of the sampler stand for tokens of the trainer: without a cap their
    expectation is the trainer's own, with one a rare token cannot outweigh all others (truncated
    importance sampling, Ionides 2008; between engines: Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training"; 2 is their cap).
    """
    if cap < 1:
        raise ValueError(f"cap must be >= 1, or it would act where both agree, got {cap}")
    log_ratio = torch.where(live, log_probs - recorded, 0.0)
    return log_ratio.exp().clamp(max=cap)
