"""The clipped surrogate of PPO as a weighted sum over decisions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.types import Metrics

LARGEST_LOG_RATIO = 20.0
"""Log-ratios are cut to +-20: float32 overflows at 88.7, and 0 times an infinite ratio is NaN."""


def clipped_surrogate(
    log_probs: Float[Tensor, "B T"],
    behavior: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    weights: Float[Tensor, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """-sum_bt w min(r A, clip(r, 1 - low, 1 + high) A), r = pi / behavior (PPO, 1707.06347, eq. 7).

    Where A < 0, `clip_dual` = c > 1 keeps the term above c A: a bad action's ratio pulls up to c
    (dual-clip PPO, 1912.09729, eq. 5). Beyond exp(LARGEST_LOG_RATIO) no term grows further, and
    its decision has no gradient. A decision of weight 0 may hold anything: it is left out before
    the exponential. Metrics are sums with the same weights, so micro-batches add up to means.
    """
    live = weights != 0
    work = torch.promote_types(log_probs.dtype, torch.float32)
    log_ratio = torch.where(live, log_probs, 0.0).to(work) - torch.where(live, behavior, 0.0)
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    gain = advantages[:, None]
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    term = torch.minimum(ratio * gain, bounded * gain)
    low = (ratio < 1 - clip_low) & (gain < 0)
    stopped = (log_ratio > LARGEST_LOG_RATIO) & (gain != 0)
    if clip_dual is not None:
        term = torch.where(gain < 0, torch.maximum(term, clip_dual * gain), term)
        stopped = stopped | ((ratio > clip_dual) & (gain < 0))
    loss = -(weights * term).sum()
    high = (ratio > 1 + clip_high) & (gain > 0)
    with torch.no_grad():
        metrics = {
            "ratio": (weights * ratio).sum().item(),
            "clip_fraction": (weights * (low | high | stopped)).sum().item(),
            "clip_fraction_low": (weights * low).sum().item(),
            "clip_fraction_high": (weights * high).sum().item(),
            "approx_kl": -(weights * log_ratio).sum().item(),
        }
    return loss, metrics
