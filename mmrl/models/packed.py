"""Answers of a group in one row behind the prefix they share, and layers that run twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(frozen=True)
class Packed:
    """The answers of P prompts, a row a prompt, one after the other without padding in between.

    An answer's last token predicts nothing, so it is left out.
    """

    ids: Int[Tensor, "P A"]
    owner: Int[Tensor, "P A"]
    """Number of the answer, from 1; 0 on the padding at the end of a row."""
    place: Int[Tensor, "P A"]
    """Index of a token in its answer."""
    source_row: Int[Tensor, " K"]
    source_column: Int[Tensor, " K"]
    """Where each answer token is predicted: 0 is the prefix's end, n the row's n-th token."""


def pack(ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], prompts: int) -> Packed:
    """The first `lengths` tokens of B = P G answers as P rows; an answer may be empty."""
    rows, width = ids.shape
    place = torch.arange(width, device=ids.device).expand(rows, -1)
    number = torch.arange(rows, device=ids.device)
    prompt, owner = (x[:, None].expand(-1, width) for x in _divide(number, rows // prompts))
    fed = place < lengths[:, None] - 1
    order = (~fed).view(prompts, -1).byte().argsort(dim=1, stable=True)
    order = order[:, : fed.view(prompts, -1).sum(1).max()]

    def row(values: Tensor) -> Tensor:
        return torch.where(fed, values, 0).reshape(prompts, -1).gather(1, order)

    count = fed.view(prompts, -1).cumsum(1).view(rows, width)
    column = torch.cat([torch.zeros_like(count[:, :1]), count[:, :-1]], dim=1)
    column = torch.where(place == 0, 0, column)
    live = place < lengths[:, None]
    return Packed(row(ids), row(owner + 1), row(place), prompt[live], column[live])


def _divide(number: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return number // size, number % size


def block_mask(
    prefix: Int[Tensor, "P L"], owner: Int[Tensor, "P A"]
) -> Bool[Tensor, "P 1 L+A L+A"]:
    """Who sees whom: causal, the prefix by all, an answer by itself only, padding by itself."""
    prefix_owner = torch.where(prefix == 1, 0, -1)
    owners = torch.cat([prefix_owner, torch.where(owner == 0, -1, owner)], dim=1)
    length = owners.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool, device=owners.device).tril()
    keys, queries = owners[:, None, :], owners[:, :, None]
    related = (keys == 0) | (keys == queries)
    itself = torch.eye(length, dtype=torch.bool, device=owners.device)
    return ((causal & related & (keys >= 0)) | itself)[:, None]


@contextmanager
def checkpointed(module: nn.Module) -> Iterator[None]:
    """Layers keep their input alone and run again in the backward pass; dropout stays off.

    transformers asks a layer's `training` flag; here it is set on the layer and not on what is in
    it. Only forward passes without a cache may run inside.
    """
    layers = [each for each in module.modules() if isinstance(each, GradientCheckpointingLayer)]
    before = [(layer.training, layer.gradient_checkpointing) for layer in layers]
    try:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = True
            layer.__dict__["_gradient_checkpointing_func"] = partial(
                checkpoint, use_reentrant=False, preserve_rng_state=False
            )
        yield
    finally:
        for layer, flags in zip(layers, before, strict=True):
            layer.training, layer.gradient_checkpointing = flags
