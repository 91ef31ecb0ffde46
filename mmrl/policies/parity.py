"""What happens where an engine's log-probs are not the trainer's."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.config import UserError
from mmrl.ops.parity import gap, truncated_ratio
from mmrl.policies.engine_config import ParityConfig
from mmrl.types import Rollout

logger = logging.getLogger(__name__)


def settle(rollout: Rollout, log_probs: Float[Tensor, "B T"], config: ParityConfig) -> Rollout:
    """The rollout as it may be trained on, given the trainer's log-probs of its tokens.

    `correct` multiplies the weights of all terms of the loss, the KL penalty's too: its estimate
    is an expectation over the same tokens. UserError for a gap beyond the tolerance in `stop`, and
    in any mode for one that is not a number.
    """
    weights = rollout.weights["token"]
    recorded = rollout.behavior["token"].log_probs.to(weights.device)
    log_probs = log_probs.to(weights.device)
    live = weights != 0
    found = gap(log_probs, recorded, live)
    line = (
        f"log-probs of engine and trainer are {found.mean:.3g} nats a token apart "
        f"(largest {found.largest:.3g}, tolerance {config.tolerance:.3g})"
    )
    if not found.largest < torch.inf or (config.mode == "stop" and found.mean > config.tolerance):
        raise UserError(
            f"{line}: do both hold the same weights, precision, temperature and prompts?"
        )
    if config.mode == "correct":
        weights = weights * truncated_ratio(log_probs, recorded, live, cap=config.cap)
        return replace(rollout, weights={**rollout.weights, "token": weights})
    if found.mean > config.tolerance:
        logger.warning(line)
    return rollout
