"""(P, G) scores by name -> (P, G) rewards. NaN says that a sample could not be scored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.advantages import group_normalized


def weighted_sum(
    scores: Mapping[str, Float[Tensor, "P G"]], weights: Mapping[str, float]
) -> Float[Tensor, "P G"]:
    """sum_k w_k score_k; a reward of weight 0 never matters, a NaN in another makes the sum NaN."""
    used = [weights[name] * values for name, values in scores.items() if weights[name] != 0]
    if not used:
        raise ValueError("every weight is 0: nothing to sum")
    return torch.stack(used).sum(0)


def normalized(
    scores: Mapping[str, Float[Tensor, "P G"]], weights: Mapping[str, float], *, eps: float = 1e-4
) -> Float[Tensor, "P G"]:
    """sum_k w_k (score_k - mean) / (std + eps), each reward by its own group (GDPO, 2601.05242)."""
    tables = {name: values for name, values in scores.items() if weights[name] != 0}
    scaled = {
        name: torch.where(values.isnan(), torch.nan, group_normalized(values, eps=eps))
        for name, values in tables.items()
    }
    return weighted_sum(scaled, weights)
