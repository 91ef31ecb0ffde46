"""Generated tokens, who may generate them besides the model itself, and what they say as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mmrl.config import ConfigError
from mmrl.models.vlm import VlmModel
from mmrl.ops.weights import per_decision, per_length, per_sequence
from mmrl.types import Prompt, TextSample

Weighting = Literal["sequence", "decision", "length"]
"""Of a loss over tokens: every answer counts alike (GRPO), every token (DAPO), or every token of a
batch whose size is rows x the longest answer allowed (Dr. GRPO)."""


@dataclass(frozen=True)
class Answers:
    """Generated tokens, right-padded."""

    ids: Int[Tensor, "B T"]
    log_probs: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    """1 up to and with the end token."""

    def to(self, device: torch.device) -> Answers:
        """The same answers on a device."""
        return Answers(self.ids.to(device), self.log_probs.to(device), self.mask.to(device))


@runtime_checkable
class AnswerEngine(Protocol):
    """Another program that holds a copy of the weights and samples from it."""

    def push(self, model: VlmModel) -> None:
        """Take over the weights of now."""
        ...

    def answer(
        self,
        prompts: Sequence[Prompt],
        chats: Sequence[str],
        group_size: int,
        seeds: Sequence[int],
    ) -> Answers:
        """G sampled answers to each prompt, group-major; `chats` are the prompts as text."""
        ...


def join(parts: Sequence[Answers]) -> Answers:
    """Rows of several passes, padded to the longest answer."""
    width = max(part.ids.shape[1] for part in parts)
    fields = ("ids", "log_probs", "mask")
    joined = (
        torch.cat([pad(getattr(p, name), (0, width - p.ids.shape[1])) for p in parts])
        for name in fields
    )
    return Answers(*joined)


def shares(
    mask: Float[Tensor, "B T"], weighting: Weighting, longest: int = 1
) -> tuple[Float[Tensor, "B T"], Float[Tensor, " B"]]:
    """Weights of a loss over tokens, and what each row adds to what they are divided by."""
    rows, tokens = torch.ones_like(mask[:, 0]), mask.sum(1)
    match weighting:
        case "sequence":
            return per_sequence(mask), rows
        case "decision":
            return per_decision(mask), tokens
        case "length":
            return per_length(mask, longest), rows


def check_template(template: str) -> None:
    """ConfigError unless the template has a place for the prompt's text."""
    if "{question}" not in template:
        raise ConfigError(
            f"has no {{question}} to put the prompt's text in: {template!r}", key="prompt_template"
        )


def prompts_of(part: slice, rows: int, group_size: int) -> slice:
    """Which prompts the rows of `part` answer; whole groups only."""
    start, stop, _ = part.indices(rows)
    assert start % group_size == 0 and stop % group_size == 0, "a cut inside a group"
    return slice(start // group_size, stop // group_size)


def each_of(prompts: Sequence[Prompt], group_size: int) -> list[Prompt]:
    """Prompts of the rows, group-major."""
    return [prompt for prompt in prompts for _ in range(group_size)]


def all_decisions(part: slice, length: int) -> None:
    """ValueError for a part of an answer: each token hangs on all before it."""
    if part != slice(0, length):
        raise ValueError("the decisions of an answer are replayed together, not in parts")


def text_samples(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    ids: Int[Tensor, "B T"],
    live: Bool[Tensor, "B T"],
) -> list[TextSample]:
    """Answers as text; an answer without its end token was cut off."""
    samples = []
    for prompt, row, mask in zip(prompts, ids, live, strict=True):
        written = row[mask].tolist()
        finished = bool(written) and written[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(written[:-1] if finished else written)
        samples.append(TextSample(prompt, text, len(written), finished))
    return samples
