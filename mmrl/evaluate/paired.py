"""Two arms on the same prompts: wins, p-values, and agreement with human preference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrl.evaluate.metrics import wilson_interval

Verdict = Literal["rose", "fell", "no clear change", "one prompt: no interval"]


def verdict(low: float, high: float, p_value: float, *, level: float) -> Verdict:
    """`rose` or `fell` where the interval of the change leaves out 0 *and* p is at most 1 - level.

    Bounds that are NaN are those of one prompt, which says nothing of how prompts differ.
    """
    if not math.isfinite(low):
        return "one prompt: no interval"
    if p_value > 1 - level + 1e-12 or low <= 0 <= high:
        return "no clear change"
    return "rose" if low > 0 else "fell"


@dataclass(frozen=True)
class Wins:
    """How often the second arm beat the first."""

    wins: int
    losses: int
    ties: int

    @property
    def rate(self) -> float:
        """(wins + ties / 2) / n."""
        return (self.wins + self.ties / 2) / (self.wins + self.losses + self.ties)

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson_interval(self.wins + self.ties / 2, self.wins + self.losses + self.ties)


def count_wins(before: Sequence[float], after: Sequence[float], *, tie: float = 0.0) -> Wins:
    """Pairs that differ by at most `tie` are ties; a pair with a NaN is not counted.

    ValueError where no pair is left.
    """
    gaps = _gaps(before, after)
    if not len(gaps):
        raise ValueError("no pair has both scores: there is nothing to compare")
    wins, losses = int((gaps > tie).sum()), int((gaps < -tie).sum())
    return Wins(wins, losses, len(gaps) - wins - losses)


def sign_flip_p_value(
    gaps: Sequence[float], groups: Sequence[int], *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of mean gap = 0: signs of whole groups (prompts) are flipped at random.

    (1 + flips with a mean at least as far from 0) / (1 + resamples); NaN gaps are left out.
    """
    array, labels = np.asarray(gaps, np.float64), np.asarray(groups)
    known = np.isfinite(array)
    if not known.any():
        return math.nan
    labels = np.unique(labels[known], return_inverse=True)[1]
    sums = np.bincount(labels, weights=array[known])
    random = np.random.default_rng(seed)
    seen = abs(sums.sum()) * (1 - 1e-12)
    hits = 0
    for start in range(0, resamples, 1000):
        count = min(1000, resamples - start)
        signs = random.integers(0, 2, size=(count, len(sums))) * 2 - 1
        hits += int((np.abs(signs @ sums) >= seen).sum())
    return (1 + hits) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that keep the chance of any false claim at the level (Holm, 1979); NaN stays."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, running = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * p))
        adjusted[index] = running
    return adjusted


def mcnemar_p_value(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided test of paired right/wrong answers, from the discordant pairs alone."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} answers before, {len(after)} after: not pairs")
    won = sum(y and not x for x, y in zip(before, after, strict=True))
    lost = sum(x and not y for x, y in zip(before, after, strict=True))
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


@dataclass(frozen=True)
class PreferenceAccuracy:
    """Agreement of score differences with human preference."""

    without_ties: float
    """C / (C + D + T) over pairs where people had a preference; T: equal scores."""
    with_ties: float
    """Best over epsilon of right pairs / all pairs, |difference| <= epsilon being a tie."""
    epsilon: float
    """The smallest that reaches it; -1: no score is a tie. Chosen on these pairs: optimistic."""


def preference_accuracy(human: Sequence[int], gaps: Sequence[float]) -> PreferenceAccuracy:
    """Accuracy against people's 1, 0 (tie), -1, with and without ties (arXiv:2305.14324)."""
    if len(human) != len(gaps) or not len(human):
        raise ValueError(f"{len(human)} preferences, {len(gaps)} score differences")
    liked, found = np.asarray(human), np.asarray(gaps, np.float64)
    decided = liked != 0
    right = np.sign(found) == liked
    without = float(right[decided].mean()) if decided.any() else math.nan
    best, chosen = -1.0, -1.0
    for epsilon in np.unique(np.append(np.abs(found), -1.0)):
        tied = np.abs(found) <= epsilon
        share = float(np.where(tied, ~decided, right & decided).mean())
        if share > best:
            best, chosen = share, float(epsilon)
    return PreferenceAccuracy(without, best, chosen)


def _gaps(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: not pairs")
    gaps = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return gaps[np.isfinite(gaps)]
