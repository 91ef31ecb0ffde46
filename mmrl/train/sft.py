"""Supervised cold start of a VLM: maximise the likelihood of written answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrl.config import UserError
from mmrl.policies.vlm import VlmPolicy
from mmrl.trust_region.weights import trainable
from mmrl.types import Prompt


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


def sft(policy: VlmPolicy, examples: Sequence[Example], config: SftConfig) -> list[float]:
    """Train on answer tokens only, the end token included; returns the loss of every step.

    UserError where an answer is longer than the policy may write.
    """
    answers = [_answer_ids(policy, example) for example in examples]
    generator = torch.Generator().manual_seed(config.seed)
    learning = list(trainable(policy.module).values())
    optimizer = torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay)
    losses = []
    for step in track(range(config.steps), description="SFT"):
        rows = torch.randint(len(examples), (config.batch,), generator=generator).tolist()
        loss = answer_loss(
            policy, [examples[row].prompt for row in rows], [answers[row] for row in rows]
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, config.max_grad_norm)
        warmup = max(1, config.steps // 10)
        share = min((step + 1) / warmup, (config.steps - step) / (config.steps - warmup))
        optimizer.param_groups[0]["lr"] = config.lr * share
        optimizer.step()
        losses.append(loss.item())
    return losses


def answer_loss(
    policy: VlmPolicy, prompts: Sequence[Prompt], answers: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """-mean over all answer tokens of log p(token | picture, question, earlier tokens)."""
    ids = pad_sequence(list(answers), batch_first=True, padding_value=0)
    mask = pad_sequence([torch.ones(len(a)) for a in answers], batch_first=True)
    inputs = policy.model.inputs(prompts, policy.prompt_template)
    log_probs = policy.answer_log_probs(inputs, ids, group_size=1)
    mask = mask.to(log_probs.device)
    return -(torch.where(mask > 0, log_probs, 0.0)).sum() / mask.sum()


def _answer_ids(policy: VlmPolicy, example: Example) -> Tensor:
    tokenizer = policy.model.tokenizer
    ids = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    if len(ids) + 1 > policy.max_new_tokens:
        raise UserError(
            f"the answer {example.answer[:40]!r} has {len(ids) + 1} tokens with its end, "
            f"the policy writes at most {policy.max_new_tokens}"
        )
    return torch.tensor([*ids, tokenizer.eos_token_id])
