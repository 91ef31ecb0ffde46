"""How well a score tells a prompt's own sample from others: retrieval and AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmrl.evaluate.metrics import bootstrap_ci

Interval = tuple[float, float, float]
"""Mean, and a 95 % interval by bootstrap over prompts."""


@dataclass(frozen=True)
class Retrieval:
    """Of each prompt: does its own sample rank first, among five, above another one?"""

    at_1: Interval
    at_5: Interval
    auc: Interval
    """Mean over prompts of the share of other samples that score below its own; a tie is half."""
    prompts: int
    candidates: float
    """Samples a prompt is ranked against, its own included; mean over prompts."""

    def told(self) -> str:
        """One line for people."""
        parts = (("R@1", self.at_1), ("R@5", self.at_5), ("AUC", self.auc))
        numbers = ", ".join(f"{n} {m:.3f} [{a:.3f}, {b:.3f}]" for n, (m, a, b) in parts)
        return f"{numbers} ({self.prompts} prompts, {self.candidates:.0f} candidates)"


def retrieval(similarities: Sequence[np.ndarray], *, seed: int = 0) -> Retrieval:
    """From square tables of scores, prompts by samples, each prompt's own on the diagonal.

    Prompts of one table are ranked against its samples alone. A tie with another sample counts
    half a place. ValueError where a score is not finite or a table has no other sample.
    """
    above, ties, others = [], [], []
    for table in similarities:
        if table.shape[0] != table.shape[1] or len(table) < 2 or not np.isfinite(table).all():
            raise ValueError(f"need square tables of finite scores, 2 or more, got {table.shape}")
        own = np.diag(table)[:, None]
        above.append((table > own).sum(1))
        ties.append((table == own).sum(1) - 1)
        others.append(np.full(len(table), len(table) - 1))
    over, tied, count = map(np.concatenate, (above, ties, others))
    places = over + tied / 2
    hits = [(places < k).astype(float) for k in (1, 5)]
    auc = 1 - places / count
    at_1, at_5, area = (bootstrap_ci(v.tolist(), seed=seed) for v in (*hits, auc))
    return Retrieval(at_1, at_5, area, len(auc), float(count.mean() + 1))
