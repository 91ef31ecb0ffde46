"""How far a replay is from the sampler and from the policy that sampled, as sums for the logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from mmrl.objectives.surrogate import LARGEST_LOG_RATIO
from mmrl.ops.parity import gap
from mmrl.types import Actions, Metrics, Rollout

logger = logging.getLogger(__name__)
MISMATCH_NATS = 1.0
"""Of one decision: how far the two passes of a streamed gradient may be apart."""
MISMATCH = (
    f"the two passes of a streamed gradient are more than {MISMATCH_NATS:g} nat a decision apart, "
    "so the loss is formed on other likelihoods than it moves (metric replay/gap): is dropout on, "
    "or is a pass under autocast, or with another guidance or text than the sampler's?"
)


@torch.no_grad()
def ratio_metrics(actions: Actions, batch: Rollout) -> Metrics:
    """How far the policy has moved from the one that sampled.

    `ratio/deviation` is sum w |r - 1|: exactly 0 on the first update after a rollout. `ratio/kl` is
    sum w (r - 1 - log r), never negative, an unbiased estimate of KL(behavior || policy).
    Log-ratios are cut to +-LARGEST_LOG_RATIO, as in the objective, so both are finite.
    """

    def cut(log_ratio: Tensor) -> Tensor:
        return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)

    return {
        "ratio/deviation": _weighted_gap(actions, batch, lambda x: cut(x).exp() - 1),
        "ratio/kl": _weighted_gap(actions, batch, lambda x: torch.expm1(cut(x)) - cut(x)),
    }


@torch.no_grad()
def log_prob_gap(actions: Actions, batch: Rollout) -> float:
    """sum w |replayed - sampled log-prob|: how far replay is from what the sampler recorded."""
    return _weighted_gap(actions, batch, lambda log_ratio: log_ratio)


@torch.no_grad()
def passes_apart(actions: Actions, batch: Rollout) -> float:
    """As `log_prob_gap`; warns, once, of a decision that is MISMATCH_NATS or more apart.

    Log-probs of continuous actions are means over D elements: times D they are nats.
    """
    for kind, stats in actions.items():
        known = batch.behavior[kind].log_probs.to(stats.log_probs.device)
        largest = gap(stats.log_probs, known, batch.weights[kind].to(known.device) != 0).largest
        nats = largest * (1 if stats.mean is None else stats.mean.shape[-1])
        if not nats < MISMATCH_NATS:
            warn_once(MISMATCH)
    return log_prob_gap(actions, batch)


@cache
def warn_once(text: str) -> None:
    """A warning that a process logs one time, for what would be true of every step."""
    logger.warning(text)


def _weighted_gap(actions: Actions, batch: Rollout, of: Callable[[Tensor], Tensor]) -> float:
    total = 0.0
    for kind, stats in actions.items():
        if kind not in batch.behavior:
            continue
        weights = batch.weights[kind]
        live = weights != 0
        known = batch.behavior[kind].log_probs.to(stats.log_probs.device)
        log_ratio = torch.where(live, stats.log_probs - known, 0.0)
        total += (weights * of(log_ratio).abs()).sum().item()
    return total
