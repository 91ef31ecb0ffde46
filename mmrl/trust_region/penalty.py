"""The KL penalty: one number per anchor and action kind, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.objectives.surrogate import LARGEST_LOG_RATIO
from mmrl.ops.kl import KlEstimator, kl
from mmrl.types import ActionKind, Actions, ActionStats


def anchor_kls(
    current: Actions,
    anchors: Mapping[str, Actions],
    weights: Mapping[ActionKind, Float[Tensor, "B T"]],
    *,
    estimator: KlEstimator,
    behavior: Actions | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """sum_bt w KL(policy || anchor) of a decision, by `anchor/kind`, for the kinds of the anchor.

    With `behavior`, the policy that sampled, a token's estimate is multiplied by the ratio to it:
    k1 and k3 are then unbiased on rollouts of another policy, and so is their gradient. Closed
    forms need no ratio. A decision of weight 0 never enters, whatever its KL is, and its log-prob
    has no gradient.
    """
    live = {kind: _live(stats, weights[kind]) for kind, stats in current.items()}
    found = {}
    for name, anchor in anchors.items():
        for kind, stats in anchor.items():
            values = kl(kind, live[kind], stats, estimator=estimator)
            if behavior is not None and kind == "token":
                values = values * _ratio(live[kind], behavior[kind], weights[kind])
            found[f"{name}/{kind}"] = _weighted(values, weights[kind])
    return found


def penalty(
    kls: Mapping[str, Float[Tensor, ""]], coefficients: Mapping[str, float]
) -> Float[Tensor, ""]:
    """sum of coefficient times KL over `anchor/kind`."""
    terms = [coefficients[name] * value for name, value in kls.items()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _ratio(
    live: ActionStats, behavior: ActionStats, weights: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    log_ratio = live.log_probs - torch.where(weights != 0, behavior.log_probs, 0.0)
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def _live(stats: ActionStats, weights: Float[Tensor, "B T"]) -> ActionStats:
    return replace(stats, log_probs=torch.where(weights != 0, stats.log_probs, 0.0))


def _weighted(values: Float[Tensor, "B T"], weights: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    return (weights * torch.where(weights != 0, values, 0.0)).sum()
