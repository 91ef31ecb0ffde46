"""Share of each decision in the loss: one tensor for token means, sequence means and equalizers.

Each function takes a mask of live decisions. `total` replaces the mask's own count where several
micro-batches or ranks share one mean.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def per_decision(mask: Float[Tensor, "B T"], *, total: float | None = None) -> Float[Tensor, "B T"]:
    """mask / number of live decisions: every decision counts alike (DAPO's token mean)."""
    count = mask.sum().item() if total is None else total
    return mask / max(count, 1.0)


def per_sequence(mask: Float[Tensor, "B T"], *, total: float | None = None) -> Float[Tensor, "B T"]:
    """mask / (rows * live decisions of the row): every row counts alike (GRPO)."""
    rows = float(len(mask)) if total is None else total
    return mask / mask.sum(1, keepdim=True).clamp(min=1.0) / max(rows, 1.0)


def per_length(
    mask: Float[Tensor, "B T"], length: float, *, total: float | None = None
) -> Float[Tensor, "B T"]:
    """mask / (rows * length), `length` one number for all rows (Dr. GRPO: the longest allowed).

    Every decision counts alike, whatever the lengths of the batch.
    """
    rows = float(len(mask)) if total is None else total
    return mask / length / max(rows, 1.0)


def per_timestep(
    mask: Float[Tensor, "B T"], scales: Float[Tensor, " T"], *, total: float | None = None
) -> Float[Tensor, "B T"]:
    """per_decision times the scale of each timestep."""
    return per_decision(mask, total=total) * scales
