"""What the spine asks of a policy, whatever it writes or draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from mmrl.types import (
    FIRST_TURN,
    Actions,
    Prompt,
    Rollout,
    Sample,
    TextSample,
    Turn,
    VideoSample,
)

Ready = Callable[[Sequence[Sample]], None]
"""Who is told of finished samples while a rollout goes on."""


def no_one_waits(samples: Sequence[Sample]) -> None:
    """For rollouts whose samples are of use at the end only."""


@runtime_checkable
class Policy(Protocol):
    """A model that samples, and can say how likely its own actions were.

    Randomness comes in as one seed per prompt, so a prompt's samples do not depend on which rank
    or micro-batch it lands in.
    """

    module: nn.Module
    """Holds every weight; the trainable ones are those with `requires_grad`."""

    decision_chunk: int | None
    """Decisions of one forward and backward pass in training; None: all of them at once."""

    def rollout(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        turn: Turn = FIRST_TURN,
        ready: Ready = no_one_waits,
    ) -> Rollout:
        """G stochastic samples per prompt, group-major, without gradients.

        `ready` is called with each part of the samples that is finished: whole groups, in order.
        """
        ...

    def evaluate(self, batch: Rollout) -> Actions:
        """Likelihoods of a rollout's own actions under the weights of now, with gradients."""
        ...

    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int]
    ) -> Sequence[TextSample] | Sequence[VideoSample]:
        """One sample per prompt the way users run the model: greedy text, deterministic solver."""
        ...

    def to(self, device: torch.device) -> None:
        """Move every part of the model."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Export as a folder that the library of the model loads (`from_pretrained` or PEFT)."""
        ...
