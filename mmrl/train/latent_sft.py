"""Latent cold start: answers whose helper pictures become spans of latents (HyLaR, stage 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmrl.config import UserError
from mmrl.data.prompts import check_image
from mmrl.models.compressor import Compressor, PatchEncoder
from mmrl.models.latent_tokens import check_plain
from mmrl.ops.latent_steps import SpanTokens, at_slots, log_go_on, slots
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.train.optimizer import adamw, moved_weights
from mmrl.train.sft import SftConfig, epochs, rate_share
from mmrl.trust_region.weights import trainable
from mmrl.types import Prompt

Regression = Literal["mse", "cosine"]


@dataclass(frozen=True)
class LatentExample:
    """A prompt, and the answer in order: texts, and helper pictures where it should imagine one."""

    prompt: Prompt
    answer: tuple[str | Path, ...]


@dataclass(frozen=True)
class LatentSftConfig:
    """The optimizer, the weight of the regression on the targets, and how it is measured."""

    sft: SftConfig
    latent_weight: float = 0.5
    regression: Regression = "mse"
    detach_targets: bool = False
    """Whether the regression moves the states alone. HyLaR's moves the targets too, which then
    may shrink toward each other; the cross-entropy trains the compressor in both cases."""
    trained_stops: bool = False
    """Whether going on with a span is learned as ending it is. HyLaR learns the end alone, and such
    a model ends most spans after its first latent."""
    compressor_lr: float | None = None
    """Rate of the compressor; None: the model's own."""


@dataclass(frozen=True)
class Spelled:
    """An answer as positions: token ids, which positions are latents, its helper pictures."""

    ids: Int[Tensor, " T"]
    latent: Bool[Tensor, " T"]
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class LatentLosses:
    """The two terms of one step."""

    tokens: float
    latents: float


def latent_sft(
    policy: LatentVlmPolicy,
    encoder: PatchEncoder,
    compressor: Compressor,
    examples: Sequence[LatentExample],
    config: LatentSftConfig,
) -> list[LatentLosses]:
    """Train the policy's learning weights and the compressor; returns the losses of every step.

    UserError for an answer without a picture, one that does not fit, or one that writes a span
    token itself.
    """
    count = len(compressor.queries)
    if count > policy.max_latents:
        raise UserError(
            f"the compressor makes {count} latents a picture, the policy thinks at most "
            f"{policy.max_latents}; raise max_latents"
        )
    spelled = [spell(policy, example, count) for example in examples]
    chosen = config.sft
    learning, own = list(trainable(policy.module).values()), list(compressor.parameters())
    rates = [chosen.lr, config.compressor_lr or chosen.lr]
    optimizer = adamw(
        list(zip((learning, own), rates, strict=True)), weight_decay=chosen.weight_decay
    )
    losses = []
    rows_of = epochs(len(examples), chosen.batch, seed=chosen.seed)
    for step in track(range(chosen.steps), description="latent SFT"):
        rows = next(rows_of)
        prompts, answers = [examples[i].prompt for i in rows], [spelled[i] for i in rows]
        tokens, latents = latent_losses(policy, encoder, compressor, prompts, answers, config)
        optimizer.zero_grad()
        (tokens + config.latent_weight * latents).backward()
        torch.nn.utils.clip_grad_norm_(moved_weights(optimizer), chosen.max_grad_norm)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_share(step, chosen.steps)
        optimizer.step()
        losses.append(LatentLosses(tokens.item(), latents.item()))
    return losses


def spell(policy: LatentVlmPolicy, example: LatentExample, count: int) -> Spelled:
    """Each picture as start, `count` latent positions and end; the end token closes the answer."""
    tokenizer, marks = policy.model.tokenizer, policy.tokens
    pieces: list[list[int] | None] = []
    for part in example.answer:
        if isinstance(part, Path):
            check_image(part, "helper picture")
            pieces.append(None)
        else:
            check_plain(part, "answer")
            pieces.append(tokenizer(part, add_special_tokens=False)["input_ids"])
    pictures = tuple(part for part in example.answer if isinstance(part, Path))
    if not pictures:
        raise UserError(
            f"the answer {str(example.answer[0])[:40]!r} has no helper picture to make latents of"
        )
    ids, latent = expand([*pieces, [tokenizer.eos_token_id]], marks, count)
    if len(ids) > policy.max_new_tokens:
        raise UserError(
            f"the answer {str(example.answer[0])[:40]!r} has {len(ids)} positions with its latents "
            f"and its end, the policy writes at most {policy.max_new_tokens}"
        )
    return Spelled(ids, latent, pictures)


def expand(
    pieces: Sequence[list[int] | None], tokens: SpanTokens, count: int
) -> tuple[Int[Tensor, " T"], Bool[Tensor, " T"]]:
    """Ids and latent positions of an answer; None stands for a picture."""
    span = [tokens.start, *[tokens.latent] * count, tokens.end]
    inner = [False, *[True] * count, False]
    ids = [i for piece in pieces for i in (span if piece is None else piece)]
    latent = [b for p in pieces for b in (inner if p is None else [False] * len(p))]
    return torch.tensor(ids), torch.tensor(latent)


def latent_losses(
    policy: LatentVlmPolicy,
    encoder: PatchEncoder,
    compressor: Compressor,
    prompts: Sequence[Prompt],
    answers: Sequence[Spelled],
    config: LatentSftConfig,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy over all tokens (and, at latents, of going on), and the latents' regression.

    The targets are fed at the latent positions, and each is what the state before it must be.
    """
    device = policy.model.device
    ids = pad_sequence([a.ids for a in answers], batch_first=True).to(device)
    latent = pad_sequence([a.latent for a in answers], batch_first=True).to(device)
    live = pad_sequence([torch.ones(len(a.ids)) for a in answers], batch_first=True).to(device)
    pictures = [picture for answer in answers for picture in answer.pictures]
    targets = compressor(encoder(pictures)).flatten(0, 1)
    inputs = policy.inputs(prompts)
    hidden = policy.hidden_states(inputs, ids, latent, targets, group_size=1)
    log_probs = policy.log_probs(hidden, torch.where(latent, policy.tokens.end, ids))
    log_probs = torch.where(latent, log_go_on(log_probs), log_probs)
    written = (live > 0) & ~latent
    if config.trained_stops:
        written = written | (latent & torch.nn.functional.pad(latent[:, :-1], (1, 0)))
    log_probs = torch.where(written, log_probs, 0.0)
    where, real = slots(latent)
    wanted = targets.detach() if config.detach_targets else targets
    return -log_probs.sum() / written.sum(), latent_loss(
        at_slots(hidden, where)[real], wanted, config.regression
    )


def latent_loss(
    predicted: Float[Tensor, "N D"], targets: Float[Tensor, "N D"], regression: Regression
) -> Float[Tensor, ""]:
    """mse: mean over N and D of (h - z)^2; cosine: 1 - mean cos(h, z). Both sides get gradients.

    HyLaR's paper sums the squares over D; the released code and this take the mean.
    """
    if regression == "mse":
        return (predicted - targets).square().mean()
    return 1 - torch.nn.functional.cosine_similarity(predicted, targets, dim=-1).mean()
