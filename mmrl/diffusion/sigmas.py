"""Noise levels of a flow-matching path, from 1 (noise) to 0 (data)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def shifted_sigmas(num_steps: int, shift: float) -> Float[Tensor, " N1"]:
    """sigma_i = k u_i / (1 + (k - 1) u_i), u_i = 1 - i / N (arXiv:2403.03206, eq. 23), float64."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    if shift <= 0:
        raise ValueError(f"shift must be > 0, got {shift}")
    u = 1 - torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    return shift * u / (1 + (shift - 1) * u)


def resolution_shift(
    num_tokens: int,
    *,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """exp(mu), mu linear in the token count: the static shift k that FLUX uses at this size."""
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return math.exp(base_shift + slope * (num_tokens - base_tokens))
