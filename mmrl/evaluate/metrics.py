"""Statistics of an evaluation: intervals, pass@k. NaN: nothing was measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from mmrl.evaluate.calibration import brier, expected_calibration_error

__all__ = [
    "bootstrap_ci",
    "brier",
    "expected_calibration_error",
    "matthews_correlation",
    "mean_pass_at_k",
    "paired_difference",
    "pass_at_k",
    "wilson_interval",
]

RESAMPLE_BLOCK = 2_000_000
"""Numbers drawn at a time, so that memory does not grow with values times resamples."""


def bootstrap_ci(
    values: Sequence[float],
    groups: Sequence[int] | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean and percentile interval from resampling whole groups (prompts) with replacement.

    Samples of one prompt move together, so they stay together; without groups each value is its
    own. NaN values are left out; with nothing left all three numbers are NaN. One group alone says
    nothing of how groups differ: its bounds are NaN.
    """
    array = np.asarray(values, dtype=np.float64)
    labels = np.arange(len(array)) if groups is None else np.asarray(groups)
    if len(labels) != len(array):
        raise ValueError(f"{len(array)} values but {len(labels)} group labels")
    known = np.isfinite(array)
    if not known.any():
        return math.nan, math.nan, math.nan
    array, labels = array[known], np.unique(labels[known], return_inverse=True)[1]
    sums = np.bincount(labels, weights=array)
    counts = np.bincount(labels).astype(np.float64)
    random, size = np.random.default_rng(seed), len(sums)
    if size < 2:
        return float(array.mean()), math.nan, math.nan
    rows = max(1, RESAMPLE_BLOCK // size)
    means = []
    for start in range(0, resamples, rows):
        drawn = random.integers(size, size=(min(rows, resamples - start), size))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(array.mean()), float(low), float(high)


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[int] | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of after - before and its bootstrap interval, on the same prompts and seeds."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: not pairs")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_ci(differences.tolist(), groups, resamples=resamples, level=level, seed=seed)


def wilson_interval(
    successes: float, count: int, *, z: float = 1.959963984540054
) -> tuple[float, float]:
    """Interval of a proportion (Wilson, 1927); half successes are ties."""
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"need 0 <= successes <= count > 0, got {successes} of {count}")
    share = successes / count
    center = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (center - half) / (1 + z**2 / count), (center + half) / (1 + z**2 / count)


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): chance that k of n samples hold one of c right ones.

    The unbiased estimator of arXiv:2107.03374, eq. 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"need 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def mean_pass_at_k(n: Sequence[int], c: Sequence[int], k: int) -> float:
    """Mean over tasks of pass@k, each task with its own number of samples."""
    if len(n) != len(c) or not n:
        raise ValueError(f"need as many counts of right samples as tasks, got {len(c)}, {len(n)}")
    return math.fsum(pass_at_k(*task, k) for task in zip(n, c, strict=True)) / len(n)


def matthews_correlation(truth: Sequence[Hashable], said: Sequence[Hashable]) -> float:
    """(c n - sum_k p_k t_k) / sqrt((n^2 - sum_k p_k^2) (n^2 - sum_k t_k^2)), in [-1, 1].

    R_K of K classes (Gorodkin, Comput. Biol. Chem. 28 (2004), eq. 8): c of n are right, class k is
    true of t_k and said of p_k. 1: all right; 0: no better than chance. NaN where one class alone
    is true, or said.
    """
    n, right = len(truth), sum(t == s for t, s in zip(truth, said, strict=True))
    true, told = Counter(truth), Counter(said)
    above = right * n - sum(count * true[name] for name, count in told.items())
    spreads = [n**2 - sum(count**2 for count in found.values()) for found in (told, true)]
    return above / math.sqrt(math.prod(spreads)) if all(spreads) else math.nan
