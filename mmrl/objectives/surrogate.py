"""The policy-gradient loss as a weighted sum over decisions, whatever bounds their ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmrl.types import Metrics

LARGEST_LOG_RATIO = 20.0
"""Log-ratios are cut to +-20: float32 overflows at 88.7, and 0 times an infinite ratio is NaN."""


@dataclass(frozen=True)
class Decisions:
    """What a surrogate sees; a decision that is not live holds zeros."""

    log_ratio: Float[Tensor, "B T"]
    """log pi - log behavior, within +-LARGEST_LOG_RATIO; beyond it without a gradient."""
    log_probs: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B 1"]
    live: Bool[Tensor, "B T"]

    def row_sums(self) -> Float[Tensor, "B 1"]:
        """sum_t log-ratio of each row."""
        return self.log_ratio.sum(1, keepdim=True)

    def row_means(self) -> Float[Tensor, "B 1"]:
        """Mean log-ratio over the live decisions of each row."""
        return self.row_sums() / self.live.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class Terms:
    """What a surrogate makes of decisions; (B, 1) stands for every decision of a row alike."""

    gain: Float[Tensor, "B _"]
    """What is maximized."""
    low: Bool[Tensor, "B _"]
    """Where a lower bound is in force: the decision has become unlikely enough."""
    high: Bool[Tensor, "B _"]


@runtime_checkable
class Surrogate(Protocol):
    """How the gain of a decision hangs on its ratio."""

    mixes_decisions: ClassVar[bool]
    """Whether a decision's gain hangs on other decisions of its row."""

    def __call__(self, decisions: Decisions) -> Terms: ...


def surrogate_loss(
    surrogate: Surrogate,
    log_probs: Float[Tensor, "B T"],
    behavior: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    weights: Float[Tensor, "B T"],
) -> tuple[Float[Tensor, ""], Metrics]:
    """-sum_bt w gain_bt.

    Beyond exp(LARGEST_LOG_RATIO) no ratio grows further, and its decision has no gradient. A
    decision of weight 0 may hold anything: it is left out before the exponential. Metrics are sums
    with the same weights, so micro-batches add up to means.
    """
    live = weights != 0
    work = torch.promote_types(log_probs.dtype, torch.float32)
    log_probs = torch.where(live, log_probs, 0.0).to(work)
    log_ratio = log_probs - torch.where(live, behavior, 0.0)
    bounded = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    terms = surrogate(Decisions(bounded, log_probs, advantages[:, None], live))
    loss = -(weights * terms.gain).sum()
    with torch.no_grad():
        runaway = (log_ratio > LARGEST_LOG_RATIO) & (advantages[:, None] != 0)
        metrics = {
            "ratio": (weights * bounded.exp()).sum().item(),
            "clip_fraction": (weights * (terms.low | terms.high | runaway)).sum().item(),
            "clip_fraction_low": (weights * terms.low).sum().item(),
            "clip_fraction_high": (weights * terms.high).sum().item(),
            "approx_kl": -(weights * log_ratio).sum().item(),
        }
    return loss, metrics
