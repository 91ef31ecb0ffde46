"""How the latents of an answer stand, beside the loss over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmrl.objectives.depo import ReleasedDepo
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.surrogate import LARGEST_LOG_RATIO
from mmrl.types import Actions, ActionStats, Metrics, Replay, Rollout


@runtime_checkable
class LatentRecord(Replay, Protocol):
    """The record of answers that hold latents."""

    @property
    def latent(self) -> Bool[Tensor, "B T"]:
        """Positions of an answer that hold a latent."""
        ...

    @property
    def hidden(self) -> Float[Tensor, "B L D"]:
        """States of the rollout that the latents were drawn around."""
        ...

    @property
    def thoughts(self) -> Float[Tensor, "B L D"]:
        """The latents, unit directions."""
        ...


@torch.no_grad()
def latent_report(
    current: ActionStats,
    behavior: ActionStats,
    weights: Float[Tensor, "B L"],
    record: LatentRecord,
    *,
    answers: int,
) -> Metrics:
    """Where latents stand to their states, how far ratios go, how many spans there are.

    `cosine` <h / |h|, z> and `state_norm` |h| are means over latents. `cosine_lowest`,
    `ratio_lowest` and `ratio_highest` are means over answers of an answer's extreme, and `per_span`
    of its latents a span; each answer has the weight of its latents, so an answer without any is
    left out, and all are 0 where no answer has one. `spans` is their number over `answers`, those
    of a step on all processes. Every number is a sum over rows: parts of a batch add up to it.
    Where a mean is no direction of D numbers, as in HyLaR's release, there is no cosine.
    """
    device, live = weights.device, weights != 0
    rows = weights.sum(1)
    log_ratio = (current.log_probs - behavior.log_probs).clamp(
        -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO
    )
    latent = record.latent.to(device)
    starts = latent & ~torch.nn.functional.pad(latent[:, :-1], (1, 0))
    spans = starts.sum(1)
    norms = torch.where(live, record.hidden.to(device).norm(dim=-1), 0.0)
    found = {
        "ratio_lowest": rows * _lowest(log_ratio.exp(), live),
        "ratio_highest": rows * -_lowest(-log_ratio.exp(), live),
        "state_norm": weights * norms,
        "per_span": rows * latent.sum(1) / spans.clamp(min=1),
        "spans": spans.double() / answers,
    }
    thoughts = record.thoughts.to(device)
    if current.mean is not None and current.mean.shape == thoughts.shape:
        cosine = torch.where(live, (current.mean * thoughts).sum(-1), 0.0)
        found |= {"cosine": weights * cosine, "cosine_lowest": rows * _lowest(cosine, live)}
    return {f"latent/{name}": values.sum().item() for name, values in found.items()}


def _lowest(values: Float[Tensor, "B L"], live: Bool[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """Of each row's live entries, 0 where there are none."""
    found = torch.where(live, values, torch.inf).amin(1)
    return torch.where(live.any(1), found, 0.0)


@dataclass(frozen=True)
class ReportedDepo:
    """An objective over tokens and latents that also says how the latents stand."""

    couples_decisions = False
    objective: Grpo | ReleasedDepo
    answers: int
    """Answers of one step on all processes."""

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The objective's own loss; its metrics and those of `latent_report`."""
        loss, metrics = self.objective(current, anchors, batch, advantages)
        assert isinstance(batch.replay, LatentRecord)
        report = latent_report(
            current["latent"],
            batch.behavior["latent"],
            batch.weights["latent"],
            batch.replay,
            answers=self.answers,
        )
        return loss, metrics | report
