"""Which steps of a rollout are stochastic, and which of those are trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepPlan:
    """A step that is trained is stochastic; the last step is deterministic in every plan here."""

    stochastic: tuple[bool, ...]
    trained: tuple[bool, ...]

    def __post_init__(self) -> None:
        pairs = zip(self.stochastic, self.trained, strict=True)
        if any(trained and not stochastic for stochastic, trained in pairs):
            raise ValueError("a deterministic step has no likelihood and cannot be trained")

    @classmethod
    def all(cls, num_steps: int) -> StepPlan:
        """Every step but the last."""
        return cls.of(num_steps, range(num_steps - 1))

    @classmethod
    def window(cls, num_steps: int, start: int, size: int) -> StepPlan:
        """`size` steps from `start` on, never the last (MixGRPO, arXiv:2507.21802)."""
        if start < 0 or size < 1:
            raise ValueError(f"need start >= 0 and size >= 1, got {start} and {size}")
        return cls.of(num_steps, range(start, min(start + size, num_steps - 1)))

    @classmethod
    def random_k(cls, num_steps: int, count: int, generator: torch.Generator) -> StepPlan:
        """`count` steps drawn without replacement from all but the last."""
        if not 1 <= count < num_steps:
            raise ValueError(f"count must be 1 .. {num_steps - 1}, got {count}")
        order = torch.randperm(num_steps - 1, generator=generator)
        return cls.of(num_steps, order[:count].tolist())

    @classmethod
    def deterministic(cls, num_steps: int) -> StepPlan:
        """No noise and nothing to train: for evaluation."""
        return cls((False,) * num_steps, (False,) * num_steps)

    @classmethod
    def of(cls, num_steps: int, steps: range | list[int]) -> StepPlan:
        """The given steps stochastic and trained; ValueError where none is left."""
        chosen = set(steps)
        if not chosen <= set(range(num_steps)):
            raise ValueError(f"steps must be 0 .. {num_steps - 1}, got {sorted(chosen)}")
        if not chosen:
            raise ValueError(
                f"no stochastic step to train among {num_steps}: a ratio needs noise; "
                "choose more steps or an earlier window"
            )
        marks = tuple(step in chosen for step in range(num_steps))
        return cls(marks, marks)

    def trained_steps(self) -> tuple[int, ...]:
        """Indices of the trained steps, in order."""
        return tuple(step for step, trained in enumerate(self.trained) if trained)
