"""AdamW that moves float32 weights, also where the network computes in less.

A bfloat16 weight has 8 bits: a step below 1/512 of it rounds away, as most steps do at the rates of
fine-tuning. So such a weight has a float32 master. Gradients are added up in the master, the
optimizer moves the master, and the network's own weight is its rounded copy (mixed-precision
training, arXiv:1710.03740). Where the weights are float32 they are their own masters.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.optim import AdamW

from mmrl.trust_region.weights import trainable

Group = tuple[Sequence[nn.Parameter], float]
"""Weights and their rate."""


def adamw(groups: Sequence[Group], **settings: Any) -> AdamW:
    """AdamW (arXiv:1711.05101) over the masters; after every step the weights are their copies."""
    learning = [weight for weights, _ in groups for weight in weights]
    masters = {weight: _master(weight) for weight in learning}
    optimizer = AdamW(
        [{"params": [masters[w] for w in weights], "lr": rate} for weights, rate in groups],
        **settings,
    )
    pairs = [(weight, master) for weight, master in masters.items() if weight is not master]
    if pairs:
        optimizer.register_step_post_hook(partial(_publish, pairs))
    return optimizer


def moved_weights(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What the optimizer moves, with the gradients: the masters, in the order of the weights."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def masters(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """The masters that are not the module's own weights, by the names of those."""
    pairs = zip(trainable(module).items(), moved_weights(optimizer), strict=True)
    return {name: master for (name, weight), master in pairs if master is not weight}


@torch.no_grad()
def set_masters(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    found: Mapping[str, Shaped[Tensor, ...]] | None = None,
) -> None:
    """Masters as saved, or after somebody else wrote the module's weights, from those."""
    live = trainable(module)
    for name, master in masters(module, optimizer).items():
        master.copy_(live[name] if found is None else found[name])


def _master(weight: nn.Parameter) -> nn.Parameter:
    if weight.dtype.itemsize >= torch.float32.itemsize:
        return weight
    master = nn.Parameter(weight.detach().float())
    weight.register_post_accumulate_grad_hook(partial(_collect, weakref.ref(master)))
    return master


def _collect(held: weakref.ref[nn.Parameter], weight: Tensor) -> None:
    """Move a gradient to the master; one whose optimizer is gone takes none."""
    master = held()
    if master is None or weight.grad is None:
        return
    gradient, weight.grad = weight.grad.to(master.dtype), None
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)


@torch.no_grad()
def _publish(pairs: Sequence[tuple[nn.Parameter, nn.Parameter]], *_: object) -> None:
    for weight, master in pairs:
        weight.copy_(master)
