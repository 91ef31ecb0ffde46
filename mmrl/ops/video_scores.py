"""Scores of a video from numbers a model found in its frames (VBench, arXiv:2311.17982)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

SLOWEST_PX = 6.0
"""Flow between two frames, at 256 pixels of the shorter side, above which something moves."""


def temporal_consistency(frames: Float[Tensor, "F D"]) -> Float[Tensor, ""]:
    """Mean over frames 1.. of (max(0, cos(frame before)) + max(0, cos(first frame))) / 2.

    Fewer than two frames have no consistency: NaN (the released code divides by zero).
    """
    if len(frames) < 2:
        return frames.new_tensor(torch.nan)
    unit = normalize(frames, dim=-1)
    before = (unit[1:] * unit[:-1]).sum(-1).clamp(min=0)
    first = (unit[1:] @ unit[0]).clamp(min=0)
    return ((before + first) / 2).mean()


def is_dynamic(
    top_flows: Sequence[float], *, short_side: int, num_frames: int
) -> tuple[bool, float, int]:
    """Whether at least round(4 n / 16) of the n sampled frames move on by more than a threshold.

    `top_flows` has the mean of the largest 5 % of flow magnitudes of each pair, in pixels; the
    threshold is 6 px at a shorter side of 256. Returns also the threshold and the count needed.
    As released: two sampled frames need no moving pair, so that a still pair counts as dynamic;
    one frame never does.
    """
    threshold = SLOWEST_PX * short_side / 256
    needed = round(4 * num_frames / 16)
    moving = sum(flow > threshold for flow in top_flows)
    return bool(top_flows) and moving >= needed, threshold, needed


def top_flow(flow: Float[Tensor, "2 H W"], share: float = 0.05) -> float:
    """Mean of the largest `share` of flow magnitudes, in pixels."""
    magnitudes = flow.norm(dim=0).flatten()
    return magnitudes.topk(max(1, int(share * len(magnitudes)))).values.mean().item()


def interpolation_smoothness(
    real: Float[Tensor, "F 3 H W"], interpolated: Float[Tensor, "F 3 H W"]
) -> Float[Tensor, ""]:
    """(255 - mean |real - interpolated|) / 255 over 8-bit levels; pixels are in [0, 1] here.

    Frames dropped and drawn again from their neighbors: 1 where motion is perfectly even.
    """
    levels = [(frames.clamp(0, 1) * 255).round() for frames in (real, interpolated)]
    return 1 - (levels[0] - levels[1]).abs().mean() / 255
