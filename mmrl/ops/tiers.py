"""Tiered rewards of Sweet Spot Learning (arXiv:2601.22491): right or wrong, plus how near.

The paper's thresholds are not public: zones of equal width on the proximity are ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def proximity(
    points: Float[Tensor, "N 2"], boxes: Float[Tensor, "N 4"], *, sigma_scale: float
) -> Float[Tensor, " N"]:
    """exp(-d^2 / 2), d = offset from the centre over sigma_scale half sides: 1 in the middle.

    At sigma_scale 1 an edge's midpoint is exp(-1/2), a corner exp(-1). Boxes are x1 y1 x2 y2;
    ValueError for one without area and for sigma_scale <= 0.
    """
    return (-distance(points, boxes, sigma_scale=sigma_scale).square() / 2).exp()


def distance(
    points: Float[Tensor, "N 2"], boxes: Float[Tensor, "N 4"], *, sigma_scale: float
) -> Float[Tensor, " N"]:
    """d of `proximity`: the Mahalanobis distance from the centre."""
    if sigma_scale <= 0:
        raise ValueError(f"sigma_scale must be > 0, got {sigma_scale}")
    sides = boxes[:, 2:] - boxes[:, :2]
    if bool((sides <= 0).any()):
        raise ValueError("a target box without area has no zones; need x1 < x2 and y1 < y2")
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((points - center) / (sigma_scale * sides / 2)).norm(dim=1)


def zone_levels(closeness: Float[Tensor, " N"], zones: int) -> Float[Tensor, " N"]:
    """k / (K - 1), k = min(floor(K S), K - 1): 0 in the outermost of K zones, 1 in the innermost.

    ValueError for fewer than 2 zones and for S outside [0, 1] or NaN.
    """
    _check_zones(zones)
    if not bool(((closeness >= 0) & (closeness <= 1)).all()):
        raise ValueError("a proximity lies outside [0, 1] or is NaN")
    return (closeness * zones).floor().clamp(max=zones - 1) / (zones - 1)


def distance_levels(distances: Float[Tensor, " N"], zones: int) -> Float[Tensor, " N"]:
    """Levels by d <= 2^(j - K + 2), j = K - 2 .. 0: with 4 zones d <= 0.5, 1, 2 and beyond.

    ValueError for fewer than 2 zones and for a distance that is negative or NaN.
    """
    _check_zones(zones)
    if not bool((distances >= 0).all()):
        raise ValueError("a distance is negative or NaN")
    edges = 2.0 ** torch.arange(2 - zones + 1, 2, dtype=distances.dtype)
    inside = (distances[:, None] <= edges).sum(1)
    return inside.to(distances.dtype) / (zones - 1)


def tiered(
    correct: Float[Tensor, " N"], level: Float[Tensor, " N"], *, alpha: float
) -> Float[Tensor, " N"]:
    """R = C + alpha level. With alpha < 1 every right sample is above every wrong one.

    ValueError for an alpha outside [0, 1), and for levels outside [0, 1].
    """
    if not 0 <= alpha < 1:
        raise ValueError(
            f"alpha must lie in [0, 1), got {alpha}: from 1 on a near miss can equal a hit"
        )
    if not bool(((level >= 0) & (level <= 1)).all()):
        raise ValueError("a level lies outside [0, 1] or is NaN")
    return correct + alpha * level


def _check_zones(zones: int) -> None:
    if isinstance(zones, bool) or not isinstance(zones, int) or zones < 2:
        raise ValueError(f"zones must be a whole number >= 2, got {zones!r}")
