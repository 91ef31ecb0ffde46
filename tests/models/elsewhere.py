"""A device that is not here: models run on `meta`, and every meeting of two devices is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrl.models.place import Place

ELSEWHERE = Place(torch.device("meta"))
ATEN = torch.ops.aten
MAY_MEET = {ATEN._to_copy.default, ATEN.copy_.default, ATEN.index.Tensor, ATEN.index_put_.default}
"""Copies, and indices on the host, which CUDA tensors take too."""


class Watched(TorchDispatchMode):
    """Numbers of the other device read as zeros; tensors of two devices in one call raise."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        devices = {t.device.type for t in tensors([*args, *kwargs.values()]) if t.ndim}
        if len(devices) > 1 and func not in MAY_MEET:
            raise RuntimeError(f"{func} got tensors of {', '.join(sorted(devices))}")
        if func is ATEN._local_scalar_dense.default and args[0].is_meta:
            return args[0].dtype.is_complex or torch.zeros((), dtype=args[0].dtype).item()
        if func is ATEN._to_copy.default and args[0].is_meta and "cpu" in str(kwargs.get("device")):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


def tensors(values: Sequence[Any]) -> Iterator[torch.Tensor]:
    """All tensors in the arguments of a call."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
