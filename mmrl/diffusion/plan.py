"""Which steps of a rollout are stochastic, and which of those are trained.

Plans are pure functions of the number of steps, the training iteration and a generator. Where all
steps outside a window are deterministic, those before it only move its start (let a group share its
first noise, and its samples differ by the window's noise alone), and those after it belong to the
reward: they move with the weights but get no gradient.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

LastStep = Literal["deterministic", "noisy", "trained"]
WindowDecay = Literal["constant", "decay", "exp_decay"]
EXP_DECAY_RATE, EXP_DECAY_FROM = 0.1, 13
"""Per step of the window's start, and the start it sets in at (MixGRPO's release)."""
MIN_STD = 1e-3
"""Below it a log-ratio is mostly rounding: DDPM's last step has 1e-10."""


@dataclass(frozen=True)
class StepPlan:
    """A trained step is stochastic. The last step is deterministic unless it is asked for."""

    stochastic: tuple[bool, ...]
    trained: tuple[bool, ...]

    def __post_init__(self) -> None:
        pairs = zip(self.stochastic, self.trained, strict=True)
        if any(trained and not stochastic for stochastic, trained in pairs):
            raise ValueError("a deterministic step has no likelihood and cannot be trained")

    @classmethod
    def all(cls, num_steps: int, *, last: LastStep = "deterministic") -> StepPlan:
        """Every step; releases also draw noise at the last (Flow-GRPO) or train it (SAGE-GRPO)."""
        plan = cls.of(num_steps, range(num_steps if last == "trained" else num_steps - 1))
        return replace(plan, stochastic=(True,) * num_steps) if last == "noisy" else plan

    @classmethod
    def window(cls, num_steps: int, start: int, size: int) -> StepPlan:
        """`size` steps from `start` on, never the last (MixGRPO, arXiv:2507.21802)."""
        if start < 0 or size < 1:
            raise ValueError(f"need start >= 0 and size >= 1, got {start} and {size}")
        return cls.of(num_steps, range(start, min(start + size, num_steps - 1)))

    @classmethod
    def random_window(
        cls,
        num_steps: int,
        size: int,
        generator: torch.Generator,
        *,
        first: int = 0,
        stop: int | None = None,
    ) -> StepPlan:
        """A whole window at a uniform start inside first .. stop - 1; None stops at the last step.

        Flow-GRPO-Fast draws 2 or 3 steps of the first half.
        """
        stop = num_steps - 1 if stop is None else stop
        if not 0 <= first < first + size <= stop < num_steps:
            raise ValueError(
                f"a window of {size} must fit into {first} .. {stop} and leave out the last of "
                f"{num_steps} steps; choose a smaller window or a wider range"
            )
        drawn = torch.randint(stop - first - size + 1, (), generator=generator)
        return cls.window(num_steps, first + int(drawn), size)

    @classmethod
    def progressive_window(
        cls,
        num_steps: int,
        size: int,
        iteration: int,
        *,
        stride: int,
        hold: int,
        decay: WindowDecay = "constant",
        min_hold: int = 1,
    ) -> StepPlan:
        """The window of this iteration: starts 0, stride .. N - 2, each held, then from 0 again.

        A window over the end is cut before the last step (MixGRPO, arXiv:2507.21802).
        """
        if min(stride, hold, min_hold, num_steps - 1) < 1:
            raise ValueError(
                "need stride, hold and min_hold >= 1 and at least 2 steps, got "
                f"{stride}, {hold}, {min_hold} and {num_steps}"
            )
        starts = range(0, num_steps - 1, stride)
        held = {"hold": hold, "decay": decay, "min_hold": min_hold}
        ends = list(accumulate(window_hold(start, num_steps, **held) for start in starts))
        start = starts[bisect_right(ends, iteration % ends[-1])]
        return cls.window(num_steps, start, size)

    @classmethod
    def random_k(
        cls,
        num_steps: int,
        count: int,
        generator: torch.Generator,
        *,
        among: Sequence[int] | None = None,
    ) -> StepPlan:
        """`count` steps drawn without replacement from `among`; None: from all but the last."""
        candidates = sorted(set(range(num_steps - 1) if among is None else among))
        if not 1 <= count <= len(candidates):
            raise ValueError(f"count must be 1 .. {len(candidates)}, got {count}")
        order = torch.randperm(len(candidates), generator=generator)
        return cls.of(num_steps, [candidates[i] for i in order[:count].tolist()])

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

    def with_min_std(self, stds: Float[Tensor, " N"], min_std: float = MIN_STD) -> StepPlan:
        """Trains no step of less noise than `min_std`; ValueError where none is left.

        `stds` are those of `step_stds` or `ddim_stds`. The noise of a step left out stays.
        """
        pairs = zip(self.trained, stds.tolist(), strict=True)
        trained = tuple(trained and std >= min_std for trained, std in pairs)
        if any(self.trained) and not any(trained):
            raise ValueError(
                f"every trained step has a std below {min_std}, the largest "
                f"{stds.max().item():.3g}; choose earlier steps or a larger eta"
            )
        return replace(self, trained=trained)

    def trained_steps(self) -> tuple[int, ...]:
        """Indices of the trained steps, in order."""
        return tuple(step for step, trained in enumerate(self.trained) if trained)


def window_hold(start: int, num_steps: int, *, hold: int, decay: WindowDecay, min_hold: int) -> int:
    """Iterations that a window stays at `start`.

    decay: linear from `hold` at 0 to `min_hold` at N - 2. exp_decay: ceil(hold exp(-0.1 (start -
    13))) beyond start 13, `hold` before.
    """
    match decay:
        case "constant":
            return hold
        case "decay":
            share = start / max(num_steps - 2, 1)
            return max(min_hold, int(hold * (1 - share) + min_hold * share))
        case "exp_decay":
            return math.ceil(hold * math.exp(-EXP_DECAY_RATE * max(start - EXP_DECAY_FROM, 0)))
