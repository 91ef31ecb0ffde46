"""What became of every sample of a batch: a score, or NaN and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.reward.faults import Status

INFINITE = "a score was infinite"


@dataclass(frozen=True)
class Scored:
    """Scores of some samples, NaN where `statuses` is not "ok"."""

    values: Float[Tensor, " B"]
    statuses: tuple[Status, ...]
    reasons: tuple[str, ...]
    """A failure's own words; empty for "ok" and for most that abstain."""

    @classmethod
    def failed(cls, status: Status, count: int, reason: str = "") -> Scored:
        """No score for any of `count` samples."""
        return cls(torch.full((count,), torch.nan), (status,) * count, (reason,) * count)

    @classmethod
    def of(cls, values: Float[Tensor, " B"]) -> Scored:
        """A reward's own values: NaN abstains, an infinite value is an error."""
        names: list[Status] = [
            "ok" if value.isfinite() else "abstained" if value.isnan() else "error"
            for value in values
        ]
        reasons = tuple(INFINITE if name == "error" else "" for name in names)
        return cls(torch.where(values.isfinite(), values, torch.nan), tuple(names), reasons)

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """Several parts in their order."""
        values = [part.values for part in parts]
        joined = torch.cat(values) if values else torch.empty(0)
        return cls(
            joined,
            tuple(status for part in parts for status in part.statuses),
            tuple(reason for part in parts for reason in part.reasons),
        )

    def failures(self) -> list[str]:
        """Why each sample has no score, such as "error: bad file"; empty where it has one."""
        told = zip(self.statuses, self.reasons, strict=True)
        return ["" if s == "ok" else f"{s}: {reason}" if reason else s for s, reason in told]
