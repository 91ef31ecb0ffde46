"""Where the model of a scorer runs, and in which precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import torch
from jaxtyping import Shaped
from pydantic import Field
from torch import Tensor, nn

from mmrl.config import ConfigError

Device = Annotated[str | None, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")]
"""`cpu`, `cuda`, `cuda:1`, `mps`; null: this process' CUDA device if there is one, else the CPU."""
Precision = Literal["float32", "bfloat16"]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Place:
    """A device and the type of a model's floats; what meets the model is brought here."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, device: str | None, precision: Precision = "float32") -> Place:
        """The place that a config names; ConfigError where this machine has no such device."""
        return cls(pick_device(device), getattr(torch, precision))

    def holds(self, module: Module) -> Module:
        """The module here, in evaluation mode and without gradients of its weights."""
        return module.to(self.device, self.dtype).eval().requires_grad_(False)

    def floats(self, values: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
        """Floats on the device, of the model's type."""
        return values.to(self.device, self.dtype)

    def whole(self, values: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
        """Ids, masks and sizes on the device, of their own type."""
        return values.to(self.device)


CPU = Place(torch.device("cpu"))


def pick_device(device: str | None) -> torch.device:
    """The device by its name, or the one of this process.

    That is `LOCAL_RANK`'s where processes share a machine: which device is current is the word of
    a thread, and rewards are called in threads of their own. ConfigError for CUDA where it is not.
    """
    there = torch.cuda.is_available()
    if device is None and not there:
        return torch.device("cpu")
    if device in (None, "cuda") and there:
        rank = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
        return torch.device("cuda", rank % torch.cuda.device_count())
    found = torch.device(device or "cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {device}: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device: cpu, or null",
            key="device",
        )
    return found


def to_host(values: Shaped[Tensor, "*axes"]) -> Shaped[Tensor, "*axes"]:
    """Scores and embeddings on the CPU in float32, as rewards return them."""
    return values.float().cpu()
