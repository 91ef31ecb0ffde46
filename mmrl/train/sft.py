"""Supervised cold start of a VLM: maximise the likelihood of written answers."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrl.config import UserError
from mmrl.models.vlm_family import VlmInputs
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.optimizer import adamw, moved_weights
from mmrl.trust_region.weights import trainable
from mmrl.types import Prompt

logger = logging.getLogger(__name__)

Weigh = Callable[[str, Sequence[tuple[int, int]]], list[float]]
"""An answer and its tokens' first and past-the-last characters -> a weight a token."""
Mean = Literal["batch", "sample"]


@dataclass(frozen=True)
class Written:
    """An answer as token ids with its end, and what each token weighs in the loss."""

    ids: Int[Tensor, " T"]
    weights: Float[Tensor, " W"]
    """One for each token."""

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.weights):
            raise ValueError(f"{len(self.ids)} tokens but {len(self.weights)} weights")


@dataclass(frozen=True)
class Example:
    """A prompt and the answer the model should write."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class SftConfig:
    """AdamW with a linear warm-up over a tenth of the steps, then a linear fall to 0."""

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    mean: Mean = "batch"
    """Over all tokens of a batch, or over each answer's and then over answers."""
    keep_inputs: bool = False
    """Whether prepared prompts and pixels stay in memory, for small pictures seen often."""


def sft(
    policy: VlmPolicy,
    examples: Sequence[Example],
    config: SftConfig,
    weigh: Weigh | None = None,
) -> list[float]:
    """Train on answer tokens only, the end token included; returns the loss of every step.

    `weigh` says what each token counts; without it all count alike, and the end token weighs 1.
    UserError where an answer is longer than the policy may write, or has no weight at all.
    """
    answers = [write(policy, example, weigh) for example in examples]
    if weigh is not None:
        logger.info("shares of the loss by weight of a token: %s", weight_shares(answers))
    learning = list(trainable(policy.module).values())
    optimizer = adamw([(learning, config.lr)], weight_decay=config.weight_decay)
    losses = []
    kept: dict[int, VlmInputs] | None = {} if config.keep_inputs else None
    rows_of = epochs(len(examples), config.batch, seed=config.seed)
    for step in track(range(config.steps), description="SFT"):
        rows = next(rows_of)
        inputs = _inputs(policy, examples, rows, kept)
        loss = written_loss(policy, inputs, [answers[row] for row in rows], mean=config.mean)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moved_weights(optimizer), config.max_grad_norm)
        optimizer.param_groups[0]["lr"] = config.lr * rate_share(step, config.steps)
        optimizer.step()
        losses.append(loss.item())
    return losses


def epochs(count: int, batch: int, *, seed: int) -> Iterator[list[int]]:
    """Rows of one batch after the other, without end: every epoch is a fresh random permutation.

    A batch may hold the end of one epoch and the beginning of the next. UserError without examples.
    """
    if count < 1:
        raise UserError("there are no examples to learn from")
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:batch]
        waiting = waiting[batch:]


def rate_share(step: int, steps: int) -> float:
    """min((s + 1) / w, (S - s) / (S - w)), w a tenth of the S steps and at least one."""
    warmup = max(1, steps // 10)
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def answer_loss(
    policy: VlmPolicy, prompts: Sequence[Prompt], answers: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """-mean over all answer tokens of log p(token | picture, question, earlier tokens)."""
    inputs = policy.model.inputs(prompts, policy.prompt_template)
    written = [Written(answer, torch.ones(len(answer))) for answer in answers]
    return written_loss(policy, inputs, written, mean="batch")


def written_loss(
    policy: VlmPolicy, inputs: Sequence[VlmInputs], answers: Sequence[Written], *, mean: Mean
) -> Float[Tensor, ""]:
    """The weighted loss of answers to prepared prompts."""
    ids = pad_sequence([answer.ids for answer in answers], batch_first=True)
    weights = pad_sequence([answer.weights for answer in answers], batch_first=True)
    log_probs = policy.answer_log_probs(inputs, ids, group_size=1)
    return token_loss(log_probs, weights.to(log_probs.device), mean=mean)


def token_loss(
    log_probs: Float[Tensor, "B T"], weights: Float[Tensor, "B T"], *, mean: Mean
) -> Float[Tensor, ""]:
    """-sum w log p / sum w, over the batch or of each row and then over rows.

    A token of weight 0 may hold anything. ValueError for a weight that is negative or not
    finite, and for a row without any.
    """
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError("token weights must be finite and >= 0")
    if not bool((weights > 0).any(1).all()):
        raise ValueError("an answer has no token of a weight above 0")
    losses = -torch.where(weights > 0, log_probs, 0.0) * weights
    if mean == "batch":
        return losses.sum() / weights.sum()
    return (losses.sum(1) / weights.sum(1)).mean()


def weight_shares(answers: Sequence[Written]) -> str:
    """How much of the loss stands on tokens of each weight, so that a no-op shows."""
    counts = Counter(weight for answer in answers for weight in answer.weights.tolist())
    total = math.fsum(weight * count for weight, count in counts.items())
    parts = sorted(counts.items())
    return ", ".join(f"{weight:g}: {weight * count / total:.1%}" for weight, count in parts)


def write(policy: VlmPolicy, example: Example, weigh: Weigh | None = None) -> Written:
    """The tokens of an example's answer and their weights."""
    tokenizer = policy.model.tokenizer
    offsets = weigh is not None
    if offsets and not tokenizer.is_fast:
        raise UserError(
            "weights by character need a tokenizer that tells offsets; "
            f"{type(tokenizer).__name__} does not"
        )
    found = tokenizer(example.answer, add_special_tokens=False, return_offsets_mapping=offsets)
    ids = found["input_ids"]
    if len(ids) + 1 > policy.max_new_tokens:
        raise UserError(
            f"the answer {example.answer[:40]!r} has {len(ids) + 1} tokens with its end, "
            f"the policy writes at most {policy.max_new_tokens}"
        )
    weights = weigh(example.answer, found["offset_mapping"]) if weigh else [1.0] * len(ids)
    return Written(
        torch.tensor([*ids, tokenizer.eos_token_id]),
        torch.tensor([*weights, 1.0]),
    )


def _inputs(
    policy: VlmPolicy,
    examples: Sequence[Example],
    rows: Sequence[int],
    kept: dict[int, VlmInputs] | None,
) -> list[VlmInputs]:
    if kept is None:
        return policy.model.inputs([examples[row].prompt for row in rows], policy.prompt_template)
    for row in set(rows) - kept.keys():
        [kept[row]] = policy.model.inputs([examples[row].prompt], policy.prompt_template)
    return [kept[row] for row in rows]
