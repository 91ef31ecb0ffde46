"""Log-probs of sampled tokens, without a table over the whole vocabulary."""

from __future__ import annotations

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
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    parts = []
    for rows, chosen in zip(hidden.split(chunk), ids.split(chunk), strict=True):
        if torch.is_grad_enabled() and (rows.requires_grad or head.requires_grad):
            found = checkpoint(_chunk, rows, head, chosen, temperature, use_reentrant=False)
            assert isinstance(found, Tensor)
        else:
            found = _chunk(rows, head, chosen, temperature)
        parts.append(found)
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def entropy(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """-sum_v p log p in float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def inverse_cdf(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Tokens drawn by one uniform number a row, and their log-probs in float32."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    reached = log_p.double().exp().cumsum(-1)
    ids = (reached < uniform.double()[:, None] * reached[:, -1:]).sum(-1)
    return ids, log_p.gather(-1, ids[:, None])[:, 0]


def _chunk(rows: Tensor, head: Tensor, ids: Tensor, temperature: float) -> Tensor:
    logits = (rows @ head.T).float() / temperature
    return logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)
