"""A vision-language model as a policy: every generated token is an action.

All answers to a prompt share its picture and question, so vision tower and prompt run once per
prompt, in rollout and in replay, and the group's answers run off copies of the same keys and
values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import VlmInputs
from mmrl.ops.categorical import inverse_cdf, token_log_probs
from mmrl.policies.answers import (
    AnswerEngine,
    Answers,
    Weighting,
    all_decisions,
    check_template,
    each_of,
    join,
    prompts_of,
    shares,
    text_samples,
)
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.engine_config import ParityConfig
from mmrl.policies.parity import settle
from mmrl.types import FIRST_TURN, Actions, ActionStats, Prompt, Rollout, TextSample, Turn

Draw = Callable[[Float[Tensor, "B V"]], tuple[Int[Tensor, " B"], Float[Tensor, " B"]]]


@dataclass(frozen=True)
class TokenReplay:
    """Prompts once each, and their answers, group-major."""

    prompts: Sequence[VlmInputs]
    ids: Int[Tensor, "B T"]
    group_size: int

    def rows(self, part: slice) -> TokenReplay:
        """Whole groups only."""
        asked = prompts_of(part, len(self.ids), self.group_size)
        return TokenReplay(self.prompts[asked], self.ids[part], self.group_size)

    def decisions(self, part: slice) -> TokenReplay:
        """All of them or none."""
        all_decisions(part, self.ids.shape[1])
        return self


@dataclass
class VlmPolicy:
    """Rollout and replay of a VLM with a shared prefix."""

    model: VlmModel
    max_new_tokens: int
    rows: int
    """Samples of one forward pass; a multiple of the group size."""
    temperature: float = 1.0
    eval_temperature: float = 0.0
    """Of `sample`; 0 takes the likeliest token, so seeds play no part."""
    prompt_template: str = "{question}"
    weighting: Weighting = "sequence"
    gradient_checkpointing: bool = False
    """Replay a group in one row, without a cache, and run every layer again in backward."""
    engine: AnswerEngine | None = None
    """Who samples in the place of the model itself."""
    parity: ParityConfig = field(default_factory=ParityConfig)
    """What an engine's log-probs are held to."""
    decision_chunk: int | None = None
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        check_template(self.prompt_template)
        self.module = self.model.module

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
        """G sampled answers per prompt; a prompt's noise comes from its own seed alone.

        An engine's answers are replayed once more before they are trained on, for `parity`.
        """
        inputs = self.model.inputs(prompts, self.prompt_template)
        size = max(1, self.rows // group_size)
        if not self.model.vision_learns:
            inputs = [
                one for part in _slices(inputs, size) for one in self.model.look(inputs[part])
            ]
        if self.engine is not None:
            return self._engine_rollout(self.engine, prompts, inputs, group_size, seeds, ready)
        parts, samples = [], []
        for part in _slices(inputs, size):
            draw = _sampler(seeds[part], group_size, self.temperature)
            parts.append(self._generate(inputs[part], group_size, draw))
            samples += self._finished(prompts[part], group_size, parts[-1], ready)
        return self._recorded(samples, inputs, join(parts), group_size)

    def evaluate(self, batch: Rollout) -> Actions:
        """Log-probs of every answer token at the sampling temperature, teacher-forced."""
        replay = batch.replay
        assert isinstance(replay, TokenReplay)
        live = batch.weights["token"].to(self.model.device) != 0
        ends = torch.arange(1, live.shape[1] + 1, device=live.device)
        lengths = (live * ends).amax(1)
        found = self.answer_log_probs(replay.prompts, replay.ids, replay.group_size, lengths)
        return {"token": ActionStats(torch.where(live, found, 0.0))}

    def answer_log_probs(
        self,
        prompts: Sequence[VlmInputs],
        ids: Int[Tensor, "B T"],
        group_size: int,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """log p(token | picture, question, earlier tokens), the prefix computed once per prompt.

        With gradient checkpointing, tokens past an answer's length are 0 and cost nothing.
        """
        ids = ids.to(self.model.device)
        if self.gradient_checkpointing:
            return self._packed_log_probs(prompts, ids, lengths)
        prefix = self.model.prefix(prompts).repeat(group_size)
        hidden = prefix.last_hidden[:, None]
        if ids.shape[1] > 1:
            hidden = torch.cat([hidden, self.model.advance(prefix, ids[:, :-1], 0)], dim=1)
        return self._log_probs(hidden.flatten(0, 1), ids.flatten()).view(ids.shape)

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[TextSample]:
        """One answer per prompt, greedy or drawn from its own seed at `eval_temperature`."""
        samples = []
        for start in range(0, len(prompts), self.rows):
            part = prompts[start : start + self.rows]
            inputs = self.model.inputs(part, self.prompt_template)
            some = seeds[start : start + self.rows]
            warm = self.eval_temperature > 0
            draw = _sampler(some, 1, self.eval_temperature) if warm else _greedy
            samples += self._samples(part, self._generate(inputs, 1, draw))
        return samples

    def save_pretrained(self, folder: Path) -> None:
        """A transformers folder with its processor, or a PEFT adapter folder."""
        self.model.save_pretrained(folder)

    def _engine_rollout(
        self,
        engine: AnswerEngine,
        prompts: Sequence[Prompt],
        inputs: Sequence[VlmInputs],
        group_size: int,
        seeds: Sequence[int],
        ready: Ready,
    ) -> Rollout:
        """All answers at once; they are ready before the replay that compares log-probs."""
        engine.push(self.model)
        chats = [self.model.chat(prompt, self.prompt_template) for prompt in prompts]
        answers = engine.answer(prompts, chats, group_size, seeds).to(self.model.device)
        samples = self._finished(prompts, group_size, answers, ready)
        rollout = self._recorded(samples, inputs, answers, group_size)
        parts = _slices(samples, max(1, self.rows // group_size) * group_size)
        found = [self.evaluate(rollout.rows(part))["token"].log_probs for part in parts]
        return settle(rollout, torch.cat(found), self.parity)

    def _finished(
        self, prompts: Sequence[Prompt], group_size: int, answers: Answers, ready: Ready
    ) -> list[TextSample]:
        """What the answers say, as `ready` is told it."""
        samples = self._samples(each_of(prompts, group_size), answers)
        ready(samples)
        return samples

    def _recorded(
        self,
        samples: Sequence[TextSample],
        inputs: Sequence[VlmInputs],
        answers: Answers,
        group_size: int,
    ) -> Rollout:
        weights, counts = shares(answers.mask, self.weighting, self.max_new_tokens)
        return Rollout(
            samples=samples,
            group_size=group_size,
            behavior={"token": ActionStats(answers.log_probs)},
            weights={"token": weights},
            counts={"token": counts},
            replay=TokenReplay(inputs, answers.ids, group_size),
        )

    def _packed_log_probs(
        self, prompts: Sequence[VlmInputs], ids: Int[Tensor, "B T"], lengths: Tensor | None
    ) -> Float[Tensor, "B T"]:
        rows, width = ids.shape
        if lengths is None:
            lengths = torch.full((rows,), width, device=ids.device)
        live = torch.arange(width, device=ids.device) < lengths[:, None]
        found = self._log_probs(self.model.packed(prompts, ids, lengths), ids[live])
        return found.new_zeros(ids.shape).masked_scatter(live, found)

    def _log_probs(
        self, hidden: Float[Tensor, "N H"], ids: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return token_log_probs(hidden, self.model.head, ids, temperature=self.temperature)

    def _generate(self, inputs: Sequence[VlmInputs], group_size: int, draw: Draw) -> Answers:
        prefix = self.model.prefix(inputs).repeat(group_size)
        hidden = prefix.last_hidden
        end, padding = self.model.tokenizer.eos_token_id, self.model.tokenizer.pad_token_id
        open_rows = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        ids, log_probs, masks = [], [], []
        for step in range(self.max_new_tokens):
            chosen, found = draw(hidden @ self.model.head.T)
            masks.append(open_rows.float())
            ids.append(torch.where(open_rows, chosen, padding))
            log_probs.append(torch.where(open_rows, found, 0.0))
            open_rows = open_rows & (chosen != end)
            if step + 1 == self.max_new_tokens or not bool(open_rows.any()):
                break
            hidden = self.model.advance(prefix, ids[-1][:, None], step)[:, 0]
        return Answers(torch.stack(ids, 1), torch.stack(log_probs, 1), torch.stack(masks, 1))

    def _samples(self, prompts: Sequence[Prompt], answers: Answers) -> list[TextSample]:
        return text_samples(self.model.tokenizer, prompts, answers.ids, answers.mask > 0)


def _sampler(seeds: Sequence[int], group_size: int, temperature: float) -> Draw:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        uniform = [torch.rand(group_size, generator=g, dtype=torch.float64) for g in generators]
        return inverse_cdf(logits.float() / temperature, torch.cat(uniform).to(logits.device))

    return draw


def _greedy(logits: Float[Tensor, "B V"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    best = logits.float().log_softmax(-1).max(-1)
    return best.indices, best.values


def _slices(rows: Sequence[object], size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(rows), size)]
