"""Log-prob and closed-form KL of one denoising step, as means over the step's elements."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def log_prob(
    x: Float[Tensor, "B ..."], mean: Float[Tensor, "B ..."], std: Float[Tensor, ...]
) -> Float[Tensor, " B"]:
    """mean_d [-(x - mean)^2 / (2 std^2) - ln std - ln(2 pi) / 2], `std` of 0 dims or one a row.

    A mean, not the sum, over elements: the usual scale of flow-matching policies
    (arXiv:2505.05470, section 4). ValueError where the step is deterministic.
    """
    if not bool((std > 0).all()):
        raise ValueError("std must be > 0: a deterministic step has no density")
    squares = (x - mean).square().flatten(1).mean(1)
    return -squares / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)


def log_ratio(
    x: Float[Tensor, "B ..."],
    mean: Float[Tensor, "B ..."],
    other_mean: Float[Tensor, "B ..."],
    std: Float[Tensor, ...],
) -> Float[Tensor, " B"]:
    """mean_d (mean - other)(2 x - mean - other) / (2 std^2): log_prob(mean) - log_prob(other).

    Formed from the difference of the means, so close means lose no digits.
    """
    if not bool((std > 0).all()):
        raise ValueError("std must be > 0: a deterministic step has no density")
    products = (mean - other_mean) * ((x - mean) + (x - other_mean))
    return products.flatten(1).mean(1) / (2 * std**2)


def step_log_ratios(
    x: Float[Tensor, "B T D"],
    mean: Float[Tensor, "B T D"],
    other_mean: Float[Tensor, "B T D"],
    std: Float[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """`log_ratio` of every step of a path, in the memory of one step."""
    found = [log_ratio(x[:, t], mean[:, t], other_mean[:, t], std[:, t]) for t in range(x.shape[1])]
    return torch.stack(found, dim=1)


def kl(
    mean: Float[Tensor, "B ..."], anchor_mean: Float[Tensor, "B ..."], std: Float[Tensor, ...]
) -> Float[Tensor, " B"]:
    """mean_d (mean - anchor_mean)^2 / (2 std^2): KL of two Gaussians of one std, per element.

    A deterministic step (std 0) has no KL to measure and gives 0.
    """
    squares = (mean - anchor_mean).square().flatten(1).mean(1)
    live = (std > 0).expand_as(squares)
    safe = torch.where(std > 0, std, torch.ones_like(std))
    return torch.where(live, squares / (2 * safe**2), 0.0)
