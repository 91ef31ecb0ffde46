"""The processes of a run: which part of a batch is mine, and sums over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

T = TypeVar("T")
BUCKET = 2**26
"""Elements of one sum over processes: 256 MiB of float32, held three times while it runs."""


@dataclass(frozen=True)
class Ranks:
    """A thin face of accelerate: every rank holds the same weights and its share of the prompts.

    With `copies` > 1 that many neighbours have one share, and each a part of its gradient.
    """

    accelerator: Accelerator
    copies: int = 1

    @property
    def world(self) -> int:
        """How many processes run."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    @property
    def shares(self) -> int:
        """Into how many parts a batch is cut."""
        return self.world // self.copies

    @property
    def evaluates(self) -> bool:
        """Whether this process is the main one, or works on the same samples."""
        return self.accelerator.process_index < self.copies

    def share(self, count: int) -> slice:
        """This rank's contiguous part of `count` rows of a global batch."""
        size = count // self.shares
        start = self.accelerator.process_index // self.copies * size
        return slice(start, start + size)

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share of a global batch."""
        return items[self.share(len(items))]

    def totals(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum over shares of every value, in one collective with the names in sorted order."""
        names = sorted(values)
        packed = torch.tensor([values[name] for name in names], dtype=torch.float64)
        if self.world > 1:
            device = self.accelerator.device
            reduced = self.accelerator.reduce(packed.to(device), reduction="sum")
            assert isinstance(reduced, torch.Tensor)
            packed = reduced.cpu() / self.copies
        return dict(zip(names, packed.tolist(), strict=True))

    def gather(self, mine: torch.Tensor) -> torch.Tensor:
        """The rows of all ranks, in the order `mine` cuts them."""
        if self.world == 1:
            return mine
        rows = self.accelerator.gather(mine.to(self.accelerator.device))
        assert isinstance(rows, torch.Tensor)
        once = rows.unflatten(0, (self.world, len(mine)))[:: self.copies].flatten(0, 1)
        return once.to(mine.device)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add every rank's gradients, some at a time; a missing gradient counts as zero."""
        if self.world == 1:
            return
        for learning in _buckets(parameters):
            flat = torch.cat([_gradient(p).flatten() for p in learning])
            flat = self.accelerator.reduce(flat, reduction="sum")
            assert isinstance(flat, torch.Tensor)
            for p, part in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
                p.grad = part.view_as(p).clone()

    def everyone(self, mine: T) -> list[T]:
        """What every process has, in the order of processes."""
        return gather_object([mine]) if self.world > 1 else [mine]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank."""
        return self.totals({"flag": float(flag)})["flag"] > 0


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one dtype, at most BUCKET elements together, or one weight that is larger."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or size + p.numel() > BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel()
    if bucket:
        yield bucket


def _gradient(p: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad
