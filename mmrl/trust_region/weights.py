"""Past copies of a policy's trainable weights: take one, move it, put it in for a while.

With LoRA the trainable weights are the adapter, so a copy is an adapter copy on the device that
costs megabytes; with full weights the copy lies in host memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Snapshot = dict[str, Tensor]


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that learn, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def is_adapter(module: nn.Module) -> bool:
    """True where only a part of the weights learns, so that copies may stay on the device."""
    learning = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return learning < sum(p.numel() for p in module.parameters()) // 4


@torch.no_grad()
def take_snapshot(module: nn.Module, *, average: bool = False) -> Snapshot:
    """A copy of the trainable weights: on their device for adapters, else in host memory.

    One that will be an average is in float32 at least: in bfloat16 a share of 0.01 rounds away.
    """
    place = None if is_adapter(module) else "cpu"
    return {
        name: p.detach().to(
            device=place,
            dtype=torch.promote_types(p.dtype, torch.float32) if average else p.dtype,
            copy=True,
        )
        for name, p in trainable(module).items()
    }


@torch.no_grad()
def blend(snapshot: Snapshot, module: nn.Module, share: float) -> None:
    """snapshot <- (1 - share) snapshot + share weights, by copy into the snapshot's own memory.

    ValueError names the first key that the snapshot and the module do not share.
    """
    live = trainable(module)
    check_names(snapshot, live)
    for name, kept in snapshot.items():
        weight = live[name].detach().to(kept.device)
        if share == 1:
            kept.copy_(weight)
        else:
            kept.lerp_(weight.to(kept.dtype), share)


def check_names(snapshot: Snapshot, live: dict[str, nn.Parameter]) -> None:
    """ValueError unless both hold the same names and shapes."""
    for name in sorted(set(snapshot) ^ set(live)):
        side = "anchor" if name in snapshot else "policy"
        raise ValueError(f"anchor and policy differ: '{name}' is only in the {side}")
    for name, kept in snapshot.items():
        if kept.shape != live[name].shape:
            shapes = f"{tuple(kept.shape)} and {tuple(live[name].shape)}"
            raise ValueError(f"anchor and policy differ: '{name}' has shapes {shapes}")


@contextmanager
def using(module: nn.Module, snapshot: Snapshot) -> Iterator[None]:
    """Run the module with the snapshot's weights; the live ones return untouched."""
    live = trainable(module)
    check_names(snapshot, live)
    kept = {name: p.data for name, p in live.items()}
    try:
        for name, p in live.items():
            p.data = snapshot[name].to(device=p.device, dtype=p.dtype)
        yield
    finally:
        for name, p in live.items():
            p.data = kept[name]


@dataclass
class Anchor:
    """A past policy and its clock."""

    weights: Snapshot
    moved_at: int = 0
    """Optimizer steps done when the weights last moved."""
    version: int = 0
    """How often they moved."""

    def move(self, module: nn.Module, share: float, updates: int) -> None:
        """Blend the policy in; a share of 0 is no move."""
        if share == 0:
            return
        blend(self.weights, module, share)
        self.moved_at, self.version = updates, self.version + 1
