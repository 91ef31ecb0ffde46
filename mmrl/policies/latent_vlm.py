"""A vision-language model that also thinks in latents: tokens and latents are two action kinds.

Inside a span the network's last hidden state, or a draw around it, is its next input (HyLaR,
arXiv:2604.20328). Rollout and replay share the prefix as those of `VlmPolicy` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.models.latent_tokens import check_plain, span_tokens
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import VlmInputs
from mmrl.ops.categorical import token_log_probs
from mmrl.ops.latent_steps import (
    SpanTokens,
    at_slots,
    latent_stats,
    log_go_on,
    released_entries,
    released_stats,
    slots,
)
from mmrl.policies.answers import (
    Weighting,
    all_decisions,
    check_template,
    each_of,
    prompts_of,
    shares,
    text_samples,
)
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.latent_writing import Draws, Written, feed, join, write
from mmrl.types import (
    FIRST_TURN,
    ActionKind,
    Actions,
    ActionStats,
    Prompt,
    Rollout,
    TextSample,
    Turn,
)


@dataclass(frozen=True)
class LatentReplay:
    """Prompts once each, and their answers with the latents that were fed, group-major."""

    prompts: Sequence[VlmInputs]
    ids: Int[Tensor, "B T"]
    latent: Bool[Tensor, "B T"]
    hidden: Float[Tensor, "B L D"]
    thoughts: Float[Tensor, "B L D"]
    group_size: int

    def rows(self, part: slice) -> LatentReplay:
        """Whole groups only."""
        return LatentReplay(
            self.prompts[prompts_of(part, len(self.ids), self.group_size)],
            self.ids[part],
            self.latent[part],
            self.hidden[part],
            self.thoughts[part],
            self.group_size,
        )

    def decisions(self, part: slice) -> LatentReplay:
        """All of them or none."""
        all_decisions(part, self.ids.shape[1])
        return self


@dataclass
class LatentVlmPolicy:
    """Rollout and replay of an answer of tokens and latents."""

    model: VlmModel
    max_new_tokens: int
    rows: int
    """Samples of one forward pass; a multiple of the group size."""
    kappa: float
    """Concentration of the latents' von Mises-Fisher law."""
    max_latents: int
    """Latents of one span; after so many its end is written without a choice."""
    latent_sampling: Literal["vmf", "mode"] = "vmf"
    """Whether a rollout draws its latents, or feeds the hidden state itself."""
    latent_weight: float = 1.0
    """Factor of the latents' policy loss."""
    trained_stops: bool = True
    """Whether going on with a span is a decision in the loss, as ending it is."""
    variant: Literal["fixed", "released"] = "fixed"
    temperature: float = 1.0
    eval_temperature: float = 0.0
    """Of `sample`; 0 takes the likeliest tokens and the modes of the latents."""
    prompt_template: str = "{question}"
    weighting: Weighting = "decision"
    decision_chunk: int | None = None
    module: nn.Module = field(init=False)
    tokens: SpanTokens = field(init=False)

    def __post_init__(self) -> None:
        check_template(self.prompt_template)
        if self.variant == "released" and self.latent_sampling == "vmf":
            raise ConfigError(
                "the release draws no latents; variant released needs latent_sampling: mode",
                key="latent_sampling",
            )
        self.module, self.tokens = self.model.module, span_tokens(self.model)

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.module.to(device)

    @torch.no_grad()
    def rollout(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        turn: Turn = FIRST_TURN,
        ready: Ready = no_one_waits,
    ) -> Rollout:
        """G sampled answers per prompt; a prompt's noise comes from its own seed alone."""
        inputs = self.inputs(prompts)
        per_pass = max(1, self.rows // group_size)
        parts, samples = [], []
        for start in range(0, len(prompts), per_pass):
            part = slice(start, start + per_pass)
            if not self.model.vision_learns:
                inputs[part] = self.model.look(inputs[part])
            draws = self._draws(seeds[part], group_size, self.temperature)
            parts.append(self._write(inputs[part], draws))
            finished = self._samples(each_of(prompts[part], group_size), parts[-1])
            ready(finished)
            samples += finished
        written = join(parts)
        rollout = self._rollout(samples, group_size, inputs, written)
        if self.variant == "released":
            return replace(rollout, behavior=self.evaluate(rollout))
        _, real = slots(written.latent)
        stats = latent_stats(written.hidden, written.thoughts, real, self.kappa)
        known: Actions = {"token": ActionStats(written.log_probs), "latent": stats}
        return replace(rollout, behavior=known)

    def evaluate(self, batch: Rollout) -> Actions:
        """Likelihoods of tokens and latents at the sampling temperature, in one pass.

        Latents are fed as they were drawn, so no gradient runs back through them.
        """
        replay = batch.replay
        assert isinstance(replay, LatentReplay)
        device = self.model.device
        ids, latent = replay.ids.to(device), replay.latent.to(device)
        where, real = slots(latent, replay.thoughts.shape[1])
        fed = feed(replay.thoughts, replay.hidden, self.model.head.dtype).to(device)
        hidden = self.hidden_states(replay.prompts, ids, latent, fed[real], replay.group_size)
        live = batch.weights["token"].to(device) != 0
        if self.variant == "released":
            text = self.log_probs(hidden, ids)
            table = torch.zeros_like(hidden).masked_scatter(latent[..., None], fed[real])
            entries = released_entries(hidden, text, table, latent, self.kappa)
            stats = released_stats(entries, where, self.kappa)
            return {"token": ActionStats(torch.where(live, entries, 0.0)), "latent": stats}
        asked = torch.where(latent, self.tokens.end, ids)
        text = self.log_probs(hidden, asked)
        text = torch.where(latent, log_go_on(text), text)
        stats = latent_stats(at_slots(hidden, where), replay.thoughts.to(device), real, self.kappa)
        return {"token": ActionStats(torch.where(live, text, 0.0)), "latent": stats}

    def hidden_states(
        self,
        prompts: Sequence[VlmInputs],
        ids: Int[Tensor, "B T"],
        latent: Bool[Tensor, "B T"],
        fed: Float[Tensor, "N D"],
        group_size: int,
    ) -> Float[Tensor, "B T D"]:
        """The states that predict every position, teacher-forced; `fed` row by row."""
        prefix = self.model.prefix(prompts).repeat(group_size)
        hidden = prefix.last_hidden[:, None]
        if ids.shape[1] == 1:
            return hidden
        embedded = self.model.embed(ids)
        embedded = embedded.masked_scatter(latent[..., None], fed.to(embedded.dtype))
        return torch.cat([hidden, self.model.advance_embedded(prefix, embedded[:, :-1], 0)], dim=1)

    def log_probs(
        self, hidden: Float[Tensor, "B T D"], ids: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Log-probs of these tokens after these states, at the sampling temperature."""
        found = token_log_probs(
            hidden.flatten(0, 1), self.model.head, ids.flatten(), temperature=self.temperature
        )
        return found.view(ids.shape)

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[TextSample]:
        """One answer per prompt, drawn from its own seed at `eval_temperature`.

        Latents are drawn where a rollout draws them. At 0 tokens are the likeliest, latents their
        modes, and seeds play no part.
        """
        samples = []
        for start in range(0, len(prompts), self.rows):
            part = slice(start, start + self.rows)
            draws = Draws((), 1, 1.0, None)
            if self.eval_temperature > 0:
                draws = self._draws(seeds[part], 1, self.eval_temperature)
            samples += self._samples(prompts[part], self._write(self.inputs(prompts[part]), draws))
        return samples

    def save_pretrained(self, folder: Path) -> None:
        """A transformers folder with its processor, or a PEFT adapter folder."""
        self.model.save_pretrained(folder)

    def inputs(self, prompts: Sequence[Prompt]) -> list[VlmInputs]:
        """Prompts as the network reads them; DataError where one writes a span token itself."""
        for prompt in prompts:
            check_plain(prompt.text, "prompt")
        return self.model.inputs(prompts, self.prompt_template)

    def _draws(self, seeds: Sequence[int], group_size: int, temperature: float) -> Draws:
        kappa = self.kappa if self.latent_sampling == "vmf" else None
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        return Draws(noise, group_size, temperature, kappa)

    def _write(self, inputs: Sequence[VlmInputs], draws: Draws) -> Written:
        prefix = self.model.prefix(inputs).repeat(draws.group_size)
        return write(
            self.model,
            prefix,
            self.tokens,
            draws,
            budget=self.max_latents,
            length=self.max_new_tokens,
        )

    def _rollout(
        self,
        samples: Sequence[TextSample],
        group_size: int,
        inputs: list[VlmInputs],
        made: Written,
    ) -> Rollout:
        """The rollout but for its likelihoods."""
        _, real = slots(made.latent)
        if self.variant == "released":
            tokens = made.live & ~made.latent
            closed = real.sum(1) - made.open_latents
            latents = real & (torch.arange(real.shape[1], device=real.device) < closed[:, None])
        else:
            tokens = made.free if self.trained_stops else made.free & ~made.latent
            latents = real
        masks: dict[ActionKind, Tensor] = {"token": tokens.float(), "latent": latents.float()}
        longest = {"token": self.max_new_tokens, "latent": self.max_latents}
        weights: dict[ActionKind, Tensor] = {}
        counts: dict[ActionKind, Tensor] = {}
        for kind, mask in masks.items():
            weights[kind], counts[kind] = shares(mask, self.weighting, longest[kind])
        scale = torch.full((real.shape[1],), self.latent_weight, device=real.device)
        return Rollout(
            samples=samples,
            group_size=group_size,
            behavior={},
            weights=weights,
            counts=counts,
            replay=LatentReplay(
                inputs, made.ids, made.latent, made.hidden, made.thoughts, group_size
            ),
            scales={"latent": scale},
        )

    def _samples(self, prompts: Sequence[Prompt], made: Written) -> list[TextSample]:
        return text_samples(self.model.tokenizer, prompts, made.ids, made.live)
