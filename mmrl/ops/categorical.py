"""Log-probs of sampled tokens, without a table over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_log_probs(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "V H"],
    ids: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> Float[Tensor, " N"]:
    """log softmax(head hidden / temperature)[ids], in float32, `chunk` rows at a time.

    Logits of a chunk are made again in the backward pass, so memory is one chunk's.
    """
    _check(temperature)

    def one(rows: Tensor, head: Tensor, chosen: Tensor) -> Tensor:
        return _log_prob(rows @ head.T, chosen, temperature)

    pairs = zip(hidden.split(chunk), ids.split(chunk), strict=True)
    return torch.cat([_remade(one, rows, head, chosen) for rows, chosen in pairs])


def token_entropy(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "V H"],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> Float[Tensor, " N"]:
    """-sum_v p log p of p = softmax(head hidden / temperature), with one chunk's memory."""
    _check(temperature)

    def one(rows: Tensor, head: Tensor) -> Tensor:
        return _entropy(rows @ head.T, temperature)

    return torch.cat([_remade(one, rows, head) for rows in hidden.split(chunk)])


def log_probs_from_logits(
    logits: Float[Tensor, "N V"],
    ids: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> Float[Tensor, " N"]:
    """log softmax(logits / temperature)[ids]: the float32 copy is never more than one chunk's."""
    _check(temperature)

    def one(rows: Tensor, chosen: Tensor) -> Tensor:
        return _log_prob(rows, chosen, temperature)

    pairs = zip(logits.split(chunk), ids.split(chunk), strict=True)
    return torch.cat([_remade(one, rows, chosen) for rows, chosen in pairs])


def entropy(
    logits: Float[Tensor, "*N V"], *, temperature: float = 1.0, chunk: int = 1024
) -> Float[Tensor, "*N"]:
    """-sum_v p log p in float32; a token of logit -inf counts 0."""
    _check(temperature)

    def one(rows: Tensor) -> Tensor:
        return _entropy(rows, temperature)

    rows = logits.reshape(-1, logits.shape[-1])
    return torch.cat([_remade(one, part) for part in rows.split(chunk)]).view(logits.shape[:-1])


def inverse_cdf(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Tokens drawn by one uniform number a row, and their log-probs in float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    reached = log_p.double().exp().cumsum(-1)
    ids = (reached < uniform.double()[:, None] * reached[:, -1:]).sum(-1)
    return ids, log_p.gather(-1, ids[:, None])[:, 0]


def _remade(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """function(*tensors), run once more in the backward pass instead of keeping what it made."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return function(*tensors)
    found = checkpoint(function, *tensors, use_reentrant=False)
    assert isinstance(found, Tensor)
    return found


def _log_prob(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    logits = _widen(logits) / temperature
    return logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)


def _entropy(logits: Tensor, temperature: float) -> Tensor:
    log_p = torch.log_softmax(_widen(logits) / temperature, dim=-1)
    possible = log_p > -torch.inf
    return -(log_p.exp() * torch.where(possible, log_p, 0.0)).sum(-1)


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
