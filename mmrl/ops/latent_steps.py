"""Latent steps inside an answer: where they stand, and how likely they were.

A span is start, N >= 1 latent positions, end. The latent at position t is drawn around the hidden
state that predicts position t, and is what the network reads there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrl.ops import vmf
from mmrl.types import ActionStats

START, LATENT, END = NAMES = ("<|canvas_start|>", "<|canvas|>", "<|canvas_end|>")
"""How the tokens of a span are written."""
OUTSIDE = -1
"""Count of a row that is in no span."""
CERTAIN = -1e-7
"""A log-prob of ending above it is cut to it: what then went on has probability 1e-7 at most."""


@dataclass(frozen=True)
class SpanTokens:
    """Ids of the tokens that open a span, stand at a latent position, and close the span."""

    start: int
    latent: int
    end: int


@dataclass(frozen=True)
class SpanStep:
    """What becomes of one drawn token in every row."""

    ids: Int[Tensor, " B"]
    latent: Bool[Tensor, " B"]
    """Rows whose position holds a latent in the place of a token."""
    free: Bool[Tensor, " B"]
    """Rows in which the policy chose: a token, or at a latent position not to end the span."""
    counts: Int[Tensor, " B"]
    """Latents of the open span so far, OUTSIDE where none is open."""


def span_step(
    drawn: Int[Tensor, " B"], counts: Int[Tensor, " B"], *, tokens: SpanTokens, budget: int
) -> SpanStep:
    """The token that is written for the one drawn (the state machine of HyLaR's rollout).

    Within a span any token but the end means one more latent. The first latent follows the start
    without a choice, and the end follows the `budget`-th.
    """
    inside, first, full = counts != OUTSIDE, counts == 0, counts >= budget
    ends = inside & (full | ((drawn == tokens.end) & ~first))
    latent = inside & ~ends
    ids = torch.where(latent, tokens.latent, torch.where(ends, tokens.end, drawn))
    opens = ~inside & (drawn == tokens.start)
    later = torch.where(latent, counts + 1, torch.where(ends, OUTSIDE, counts))
    return SpanStep(ids, latent, ~inside | ~(first | full), torch.where(opens, 0, later))


def slots(
    latent: Bool[Tensor, "B T"], width: int | None = None
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Positions of each row's latents in order, and which of these entries are real.

    L is `width`, or as many as the longest row has, and at least 1.
    """
    counts = latent.sum(1)
    width = width or max(1, int(counts.max()))
    order = torch.argsort((~latent).to(torch.int8), dim=1, stable=True)[:, :width]
    return order, torch.arange(width, device=latent.device) < counts[:, None]


def at_slots(
    table: Float[Tensor, "B T *rest"], where: Int[Tensor, "B L"]
) -> Float[Tensor, "B L *rest"]:
    """Entries of a table over positions at the positions of the latents."""
    rows = torch.arange(len(table), device=table.device)[:, None]
    return table[rows, where]


def log_go_on(log_end: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """log(1 - p) of log p: how likely a span was not to end, whatever token was drawn instead."""
    return torch.log(-torch.expm1(log_end.clamp(max=CERTAIN)))


def latent_stats(
    hidden: Float[Tensor, "B L D"],
    thoughts: Float[Tensor, "B L D"],
    real: Bool[Tensor, "B L"],
    kappa: float,
) -> ActionStats:
    """log C_D(kappa) + kappa <h / |h|, z / |z|> in float64, h the state that predicts the latent.

    Entries that are not real have finite values and no gradient.
    """
    mean = unit(hidden, real)
    scale = torch.full(real.shape, kappa, dtype=torch.float64, device=mean.device)
    return ActionStats(vmf.log_prob(unit(thoughts, real), mean, scale), mean, scale)


def unit(vectors: Float[Tensor, "*N D"], real: Bool[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
    """Vectors of length 1 in float64; the first axis where an entry is not real."""
    axis = torch.zeros(vectors.shape[-1], dtype=torch.float64, device=vectors.device)
    axis[0] = 1.0
    return torch.nn.functional.normalize(
        torch.where(real[..., None], vectors.double(), axis), dim=-1
    )


def released_entries(
    hidden: Float[Tensor, "B T D"],
    text: Float[Tensor, "B T"],
    fed: Float[Tensor, "B T D"],
    latent: Bool[Tensor, "B T"],
    kappa: float,
) -> Float[Tensor, "B T"]:
    """HyLaR's released log-probs: a latent's score is one entry late and no log density.

    After a latent the entry is kappa <h, z> with z as fed (no unit vectors, no constant) and h the
    state behind the latent; every other entry, the first latent's included, is that of its token.
    """
    behind = torch.nn.functional.pad(latent[:, :-1], (1, 0))
    before = torch.nn.functional.pad(fed[:, :-1], (0, 0, 1, 0))
    scores = kappa * (hidden.double() * before.double()).sum(-1)
    return torch.where(behind, scores, text.double())


def released_stats(
    entries: Float[Tensor, "B T"],
    where: Int[Tensor, "B L"],
    kappa: float,
) -> ActionStats:
    """The entries at latent positions; `mean` is <h, z> of each latent itself (D = 1)."""
    after = (where + 1).clamp(max=entries.shape[1] - 1)
    own = at_slots(entries, after) / kappa
    return ActionStats(at_slots(entries, where), own[..., None], torch.full_like(own, kappa))
