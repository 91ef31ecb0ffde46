"""KL of one decision against an anchor: a closed form where there is one, else an estimator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.ops import vmf
from mmrl.types import ActionKind, ActionStats

KlEstimator = Literal["k1", "k2", "k3"]

STEEPEST = 20.0
"""k3 is the exponential up to exp(20) and its tangent from there on: float32 ends at exp(88.7)."""


def estimate(
    kind: KlEstimator, log_probs: Float[Tensor, "*N"], anchor_log_probs: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """With d = log_prob - anchor: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.

    Of samples from the policy, k1 and k3 are unbiased for KL(policy || anchor), k2 and k3 are
    never negative. As a loss on the policy's own samples, k2 has the gradient of
    KL(policy || anchor), k3 that of KL(anchor || policy), k1 none on average. Where -d > STEEPEST
    k3 goes on along its tangent: finite, and steepest for what has drifted most.
    """
    d = log_probs - anchor_log_probs
    match kind:
        case "k1":
            return d
        case "k2":
            return d.square() / 2
        case "k3":
            beyond = (-d - STEEPEST).clamp(min=0)
            return torch.expm1(-d - beyond) + math.exp(STEEPEST) * beyond + d


def kl(
    kind: ActionKind, current: ActionStats, anchor: ActionStats, *, estimator: KlEstimator = "k3"
) -> Float[Tensor, "B T"]:
    """KL(policy || anchor) of each decision: Gaussian mean over D, vMF exact, tokens estimated."""
    if kind == "token":
        return estimate(estimator, current.log_probs, anchor.log_probs)
    assert current.mean is not None and current.scale is not None
    assert anchor.mean is not None and anchor.scale is not None
    if kind == "latent":
        return vmf.kl(current.mean, current.scale, anchor.mean, anchor.scale)
    squares = (current.mean - anchor.mean).square().mean(-1)
    live = current.scale > 0
    safe = torch.where(live, current.scale, torch.ones_like(current.scale))
    return torch.where(live, squares / (2 * safe.square()), 0.0)
