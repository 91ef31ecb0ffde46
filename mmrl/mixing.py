"""(P, G) scores by name -> (P, G) rewards. NaN says that a sample could not be scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmrl.advantages import group_normalized

RELEASED_ASKED_ABOVE = 0.2
"""SophiaVL-R1's code asks its judge only about outcomes of at least this; others think 0."""
RELEASED_TRIVIAL = (0.1, 0.9)
"""SophiaVL-R1's code leaves a group alone that lies wholly at or beyond one of these."""


def weighted_sum(
    scores: Mapping[str, Float[Tensor, "P G"]], weights: Mapping[str, float]
) -> Float[Tensor, "P G"]:
    """sum_k w_k score_k; a reward of weight 0 never matters, a NaN in another makes the sum NaN."""
    absent = {name for name, weight in weights.items() if weight != 0} - scores.keys()
    if absent:
        raise ValueError(f"weights without scores: {', '.join(sorted(absent))}")
    used = [weights[name] * values for name, values in scores.items() if weights[name] != 0]
    if not used:
        raise ValueError("every weight is 0: nothing to sum")
    return torch.stack(used).sum(0)


def normalized(
    scores: Mapping[str, Float[Tensor, "P G"]],
    weights: Mapping[str, float],
    *,
    std: Literal["sample", "population"] = "sample",
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """sum_k w_k (score_k - mean) / (std + eps), each reward by its own group (GDPO, 2601.05242).

    GDPO's advantage is `batch_normalized` of this.
    """
    tables = {name: values for name, values in scores.items() if weights[name] != 0}
    scaled = {
        name: torch.where(values.isnan(), torch.nan, group_normalized(values, std=std, eps=eps))
        for name, values in tables.items()
    }
    return weighted_sum(scaled, weights)


def trust_weighted(
    outcome: Float[Tensor, "P G"],
    thinking: Float[Tensor, "P G"],
    step: int,
    *,
    alpha: float = 0.3,
    decay_steps: float,
    threshold: float = 0.5,
    variant: Literal["paper", "released"] = "paper",
) -> tuple[Float[Tensor, "P G"], Float[Tensor, " P"]]:
    """R = outcome + gamma alpha exp(-step / decay_steps) thinking, and gamma of each group.

    gamma = min(1, exp(mean thinking of right answers - mean of wrong ones)), right: outcome >=
    threshold; 1 where a group has only one sort (Trust-GRPO, arXiv:2505.17018). `released` sets
    thinking to 0 where outcome < 0.2, so gamma is 1 on 0/1 outcomes, and gives gamma 0 to groups
    wholly >= 0.9 or <= 0.1.
    """
    if step < 0 or decay_steps <= 0:
        raise ValueError(f"need step >= 0 and decay_steps > 0, got {step} and {decay_steps}")
    if alpha < 0 or not 0 <= threshold <= 1:
        raise ValueError(f"need alpha >= 0 and 0 <= threshold <= 1, got {alpha} and {threshold}")
    _check_unit_range("outcome", outcome)
    _check_unit_range("thinking", thinking)
    if variant == "released":
        thinking = torch.where(outcome < RELEASED_ASKED_ABOVE, 0.0, thinking)
    known = ~(outcome.isnan() | thinking.isnan())
    right, wrong = known & (outcome >= threshold), known & (outcome < threshold)
    gap = _mean_where(right, thinking) - _mean_where(wrong, thinking)
    gamma = torch.where(right.any(1) & wrong.any(1), gap.clamp(max=0).exp(), 1.0)
    if variant == "released":
        gamma = torch.where(_trivial(outcome), 0.0, gamma)
    factor = gamma * (alpha * math.exp(-step / decay_steps))
    bonus = torch.where(factor[:, None] == 0, 0.0, factor[:, None] * thinking)
    return outcome + bonus, gamma


def _mean_where(chosen: Bool[Tensor, "P G"], values: Float[Tensor, "P G"]) -> Float[Tensor, " P"]:
    return torch.where(chosen, values, 0.0).sum(1) / chosen.sum(1).clamp(min=1)


def _trivial(outcome: Float[Tensor, "P G"]) -> Bool[Tensor, " P"]:
    low, high = RELEASED_TRIVIAL
    unknown = outcome.isnan()
    return ((outcome <= low) | unknown).all(1) | ((outcome >= high) | unknown).all(1)


def _check_unit_range(name: str, values: Float[Tensor, "P G"]) -> None:
    if bool(((values < 0) | (values > 1)).any()):
        low, high = values.nan_to_num(nan=0.5).aminmax()
        raise ValueError(f"{name} must lie in [0, 1], got {low:.3g} .. {high:.3g}; rescale it")
