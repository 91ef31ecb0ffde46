"""Does a stated confidence mean what it says? Reliability, ECE and its kin, Brier, NLL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SURE = 1e-12
"""Confidence is kept this far from 0 and 1 in the negative log-likelihood."""


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    accuracy: float
    confidence: float

    @property
    def gap(self) -> float:
        """|accuracy - confidence|."""
        return abs(self.accuracy - self.confidence)


def reliability(
    confidence: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> list[Bin]:
    """The bins (b / B, (b + 1) / B] that hold answers; a confidence of 0 counts in the first."""
    p, hit = _forecasts(confidence, correct)
    index = np.searchsorted(np.arange(1, bins) / bins, p, side="left")
    return [
        _bin(b / bins, (b + 1) / bins, p[index == b], hit[index == b])
        for b in np.unique(index).tolist()
    ]


def expected_calibration_error(
    confidence: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> float:
    """sum_b n_b / n |accuracy_b - confidence_b| over `reliability` bins.

    arXiv:1706.04599, eq. 3. Bins closed on the left, as torchmetrics has them, differ on the edges.
    """
    return _weighted_gap(reliability(confidence, correct, bins=bins))


def max_calibration_error(
    confidence: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> float:
    """max_b |accuracy_b - confidence_b| (arXiv:1706.04599, eq. 5)."""
    return max(found.gap for found in reliability(confidence, correct, bins=bins))


def adaptive_calibration_error(
    confidence: Sequence[float], correct: Sequence[float], *, bins: int = 10
) -> float:
    """ECE over bins of equal count in the order of confidence (arXiv:1904.01685)."""
    p, hit = _forecasts(confidence, correct)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return _weighted_gap([_bin(p[x].min(), p[x].max(), p[x], hit[x]) for x in parts])


def brier(confidence: Sequence[float], correct: Sequence[float]) -> float:
    """mean (p - outcome)^2 of a binary outcome (Brier, 1950)."""
    p, hit = _forecasts(confidence, correct)
    return float(np.square(p - hit).mean())


def negative_log_likelihood(confidence: Sequence[float], correct: Sequence[float]) -> float:
    """-mean log p(outcome) in nats, with p kept in [1e-12, 1 - 1e-12]."""
    p, hit = _forecasts(confidence, correct)
    p = p.clip(SURE, 1 - SURE)
    return float(-np.log(np.where(hit > 0.5, p, 1 - p)).mean())


def _bin(low: float, high: float, p: NDArray[np.float64], hit: NDArray[np.float64]) -> Bin:
    return Bin(float(low), float(high), len(p), float(hit.mean()), float(p.mean()))


def _weighted_gap(bins: Sequence[Bin]) -> float:
    total = sum(found.count for found in bins)
    return sum(found.count * found.gap for found in bins) / total


def _forecasts(
    confidence: Sequence[float], correct: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if len(p) == 0 or len(p) != len(hit):
        raise ValueError(f"need as many outcomes as confidences, got {len(hit)} and {len(p)}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a confidence lies outside [0, 1] or is NaN")
    return p, hit
