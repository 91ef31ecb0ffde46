"""Writing an answer of tokens and latents, a step at a time with a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import Prefix
from mmrl.ops import vmf
from mmrl.ops.categorical import inverse_cdf
from mmrl.ops.latent_steps import OUTSIDE, SpanTokens, log_go_on, slots, span_step


@dataclass(frozen=True)
class Written:
    """Answers, right-padded. Latents stand one after the other, as `slots` orders them."""

    ids: Int[Tensor, "B T"]
    live: Bool[Tensor, "B T"]
    """Up to and with the end token."""
    latent: Bool[Tensor, "B T"]
    free: Bool[Tensor, "B T"]
    """Where the policy chose a token, or chose not to end a span."""
    log_probs: Float[Tensor, "B T"]
    """Of the tokens; at a latent position of not ending the span there."""
    hidden: Float[Tensor, "B L D"]
    """States that the latents were drawn around."""
    thoughts: Float[Tensor, "B L D"]
    """The latents, unit directions."""
    open_latents: Int[Tensor, " B"]
    """Latents of a span that the length limit cut off, 0 where every span is closed."""


@dataclass(frozen=True)
class Draws:
    """Where tokens and directions come from: a generator per prompt, or none: the likeliest."""

    generators: Sequence[torch.Generator]
    group_size: int
    temperature: float
    kappa: float | None
    """Concentration that latents are drawn with; None: the mode itself."""

    def tokens(self, logits: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
        """One token a row."""
        if not self.generators:
            return logits.argmax(-1)
        uniform = [
            torch.rand(self.group_size, generator=g, dtype=torch.float64) for g in self.generators
        ]
        ids, _ = inverse_cdf(logits / self.temperature, torch.cat(uniform).to(logits.device))
        return ids

    def directions(
        self, mean: Float[Tensor, "B D"], wanted: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        """One unit vector a row; rows that want none keep their mean."""
        if self.kappa is None or not self.generators:
            return mean
        drawn = mean.clone()
        for index, generator in enumerate(self.generators):
            first = index * self.group_size
            rows = first + wanted[first : first + self.group_size].nonzero()[:, 0]
            if len(rows):
                kappa = torch.full((len(rows),), self.kappa, dtype=mean.dtype, device=mean.device)
                drawn[rows] = vmf.sample(mean[rows], kappa, generator)
        return drawn


def feed(
    thoughts: Float[Tensor, "*N D"], hidden: Float[Tensor, "*N D"], dtype: torch.dtype
) -> Float[Tensor, "*N D"]:
    """What the network reads at a latent position: |h| z, so that the mode is h itself."""
    return (hidden.norm(dim=-1, keepdim=True) * thoughts).to(dtype)


@dataclass
class Notes:
    """What a step leaves behind, in a list each."""

    ids: list[Tensor] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    latent: list[Tensor] = field(default_factory=list)
    free: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    thoughts: list[Tensor] = field(default_factory=list)

    def of_latents(self) -> tuple[list[Tensor], list[Tensor]]:
        """Those that only rows at a latent position have."""
        return self.hidden, self.thoughts


@torch.no_grad()
def write(
    model: VlmModel, prefix: Prefix, tokens: SpanTokens, draws: Draws, *, budget: int, length: int
) -> Written:
    """At most `length` positions an answer, with spans of 1 to `budget` latents.

    Rows in a span and rows in text go through the network side by side.
    """
    hidden, notes = prefix.last_hidden, Notes()
    counts = torch.full((len(hidden),), OUTSIDE, device=hidden.device)
    live = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    end, padding = model.tokenizer.eos_token_id, model.tokenizer.pad_token_id
    for step in range(length):
        logits = (hidden @ model.head.T).float()
        made = span_step(draws.tokens(logits), counts, tokens=tokens, budget=budget)
        latent = made.latent & live
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        mean = torch.nn.functional.normalize(wide.double(), dim=-1)
        thoughts = draws.directions(mean, latent).to(wide.dtype)
        ids = torch.where(live, made.ids, padding)
        notes.ids.append(ids)
        notes.live.append(live)
        notes.latent.append(latent)
        notes.free.append(made.free & live)
        notes.log_probs.append(_log_probs(logits / draws.temperature, ids, latent, tokens))
        notes.hidden.append(wide[latent])
        notes.thoughts.append(thoughts[latent])
        counts = torch.where(live, made.counts, counts)
        live = live & (ids != end)
        if step + 1 == length or not bool(live.any()):
            break
        vectors = model.embed(ids[:, None])[:, 0]
        read = torch.where(latent[:, None], feed(thoughts, wide, vectors.dtype), vectors)
        hidden = model.advance_embedded(prefix, read[:, None], step)[:, 0]
    return _collect(notes, counts)


def _log_probs(logits: Tensor, ids: Tensor, latent: Tensor, tokens: SpanTokens) -> Tensor:
    asked = torch.where(latent, tokens.end, ids)
    found = logits.log_softmax(-1).gather(-1, asked[:, None])[:, 0]
    return torch.where(latent, log_go_on(found), found)


def _collect(notes: Notes, counts: Tensor) -> Written:
    tables = (notes.ids, notes.live, notes.latent, notes.free, notes.log_probs)
    ids, live, latent, free, log_probs = (torch.stack(table, dim=1) for table in tables)
    _, real = slots(latent)
    # the notes run step by step, the packed table row by row
    order = latent.T.nonzero()[:, 1].argsort(stable=True)
    hidden, thoughts = (_pack(torch.cat(rows)[order], real) for rows in notes.of_latents())
    return Written(ids, live, latent, free, log_probs, hidden, thoughts, counts.clamp(min=0))


def _pack(values: Float[Tensor, "N D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    table = values.new_zeros((*real.shape, values.shape[-1]))
    table[real] = values
    return table


def join(parts: Sequence[Written]) -> Written:
    """Rows of several passes, padded to the longest answer and the most latents."""
    length = max(part.ids.shape[1] for part in parts)
    width = max(part.thoughts.shape[1] for part in parts)

    def tables(name: str) -> Tensor:
        found = [getattr(part, name) for part in parts]
        return torch.cat([pad(x, (0, length - x.shape[1])) for x in found])

    def packed(name: str) -> Tensor:
        found = [getattr(part, name) for part in parts]
        return torch.cat([pad(x, (0, 0, 0, width - x.shape[1])) for x in found])

    return Written(
        ids=tables("ids"),
        live=tables("live"),
        latent=tables("latent"),
        free=tables("free"),
        log_probs=tables("log_probs"),
        hidden=packed("hidden"),
        thoughts=packed("thoughts"),
        open_latents=torch.cat([part.open_latents for part in parts]),
    )
