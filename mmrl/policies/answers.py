"""Generated tokens, and who may generate them besides the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mmrl.models.vlm import VlmModel
from mmrl.types import Prompt


@dataclass(frozen=True)
class Answers:
    """Generated tokens, right-padded."""

    ids: Int[Tensor, "B T"]
    log_probs: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    """1 up to and with the end token."""

    def to(self, device: torch.device) -> Answers:
        """The same answers on a device."""
        return Answers(self.ids.to(device), self.log_probs.to(device), self.mask.to(device))


@runtime_checkable
class AnswerEngine(Protocol):
    """Another program that holds a copy of the weights and samples from it."""

    def push(self, model: VlmModel) -> None:
        """Take over the weights of now."""
        ...

    def answer(
        self,
        prompts: Sequence[Prompt],
        chats: Sequence[str],
        group_size: int,
        seeds: Sequence[int],
    ) -> Answers:
        """G sampled answers to each prompt, group-major; `chats` are the prompts as text."""
        ...


def join(parts: Sequence[Answers]) -> Answers:
    """Rows of several passes, padded to the longest answer."""
    width = max(part.ids.shape[1] for part in parts)
    fields = ("ids", "log_probs", "mask")
    joined = (
        torch.cat([pad(getattr(p, name), (0, width - p.ids.shape[1])) for p in parts])
        for name in fields
    )
    return Answers(*joined)
