"""The nouns every floor shares.

Axes: `P` prompts, `G` rollouts per prompt, `B = P*G` rows (group-major), `T` decisions (tokens,
latents or denoising steps), `D` size of one continuous decision, `V` vocabulary, `F C H W` frames,
channels, height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

ActionKind = Literal["token", "latent", "denoise"]
Metrics = dict[str, float]
"""Scalars by `area/name`, for logs."""


@dataclass(frozen=True)
class Prompt:
    """What a policy is asked: text, pictures, and what a reward needs to judge the answer."""

    text: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    """Recorded samples, the preferred one first."""
    answer: str | None = None
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)


def _no_list(self: object) -> NoReturn:
    """TypeError that says what a reward takes; a sample has no elements."""
    raise TypeError(f"expected a list of samples, got one {type(self).__name__}; pass [sample]")


@dataclass(frozen=True)
class TextSample:
    """One written answer. `num_tokens` counts the generated tokens, the end token included."""

    prompt: Prompt
    text: str
    num_tokens: int = 0
    finished: bool = True
    confidence: float | None = None
    """The model's own probability of its answer, in [0, 1], where it is known."""
    __iter__ = _no_list


@dataclass(frozen=True)
class VideoSample:
    """One video, RGB in [0, 1]; an image is a video of one frame."""

    prompt: Prompt
    video: Float[Tensor, "F 3 H W"]
    fps: float = 8.0
    __iter__ = _no_list


Sample = TextSample | VideoSample


@dataclass(frozen=True)
class Turn:
    """What all ranks share of one rollout: its number in the run, and a seed of its own."""

    step: int
    seed: int


FIRST_TURN = Turn(step=0, seed=0)


@dataclass(frozen=True)
class ActionStats:
    """Likelihood of sampled actions under one set of weights."""

    log_probs: Float[Tensor, "B T"]
    mean: Float[Tensor, "B T D"] | None = None
    """Gaussian mean, or unit direction of a von Mises-Fisher; None for tokens."""
    scale: Float[Tensor, "B T"] | None = None
    """Standard deviation of the step, or concentration kappa; None for tokens."""

    def rows(self, part: slice) -> ActionStats:
        """The same statistics for some rows."""
        cut = (None if x is None else x[part] for x in (self.log_probs, self.mean, self.scale))
        return ActionStats(*cut)  # pyright: ignore[reportArgumentType]

    def decisions(self, part: slice) -> ActionStats:
        """The same statistics for some decisions."""
        cut = (None if x is None else x[:, part] for x in (self.log_probs, self.mean, self.scale))
        return ActionStats(*cut)  # pyright: ignore[reportArgumentType]

    def detach(self) -> ActionStats:
        """The same values as constants."""
        cut = (None if x is None else x.detach() for x in (self.log_probs, self.mean, self.scale))
        return ActionStats(*cut)  # pyright: ignore[reportArgumentType]

    def leaf(self) -> ActionStats:
        """The same values as constants that gather a gradient."""
        log_probs = self.log_probs.detach().clone().requires_grad_()
        mean = None if self.mean is None else self.mean.detach().clone().requires_grad_()
        return ActionStats(log_probs, mean, self.scale)


Actions = Mapping[ActionKind, ActionStats]


@runtime_checkable
class Replay(Protocol):
    """A policy's own record of a rollout: the trainer only cuts it."""

    def rows(self, part: slice) -> Replay: ...
    def decisions(self, part: slice) -> Replay: ...


@dataclass(frozen=True)
class Rollout:
    """Samples of P prompts, G each, with what is needed to say how likely they were."""

    samples: Sequence[TextSample] | Sequence[VideoSample]
    group_size: int
    behavior: Actions
    """Likelihoods under the weights that sampled."""
    weights: Mapping[ActionKind, Float[Tensor, "B _"]]
    """Share of each decision in the loss, a T per kind: 0 where the policy did not act."""
    counts: Mapping[ActionKind, Float[Tensor, " B"]]
    """What each row adds to what `weights` are divided by (1, or its decisions), so that ranks and
    parts of a rollout can agree on one mean."""
    replay: Replay
    scales: Mapping[ActionKind, Float[Tensor, " _"]] = field(default_factory=dict)
    """Multiplier of each decision's policy loss, not of its KL (SAGE's timestep equalizer)."""
    drawn: Mapping[ActionKind, Float[Tensor, "B _ _"]] = field(default_factory=dict)
    """Sampled actions of continuous kinds, B T D: with the means, log-ratios lose no digits."""

    def __len__(self) -> int:
        return len(self.samples)

    def rows(self, part: slice) -> Rollout:
        """The rows of one micro-batch; multiples of `group_size` keep groups whole."""
        return replace(
            self,
            samples=self.samples[part],
            behavior={kind: stats.rows(part) for kind, stats in self.behavior.items()},
            weights={kind: weights[part] for kind, weights in self.weights.items()},
            counts={kind: counts[part] for kind, counts in self.counts.items()},
            replay=self.replay.rows(part),
            drawn={kind: drawn[part] for kind, drawn in self.drawn.items()},
        )

    def decisions(self, part: slice) -> Rollout:
        """Some of the decisions of the same rows."""
        return replace(
            self,
            behavior={kind: stats.decisions(part) for kind, stats in self.behavior.items()},
            weights={kind: weights[:, part] for kind, weights in self.weights.items()},
            replay=self.replay.decisions(part),
            scales={kind: scales[part] for kind, scales in self.scales.items()},
            drawn={kind: drawn[:, part] for kind, drawn in self.drawn.items()},
        )

    @property
    def num_decisions(self) -> int:
        """T of the longest action kind."""
        return max(weights.shape[1] for weights in self.weights.values())


def concat_stats(parts: Sequence[ActionStats], dim: int = 0) -> ActionStats:
    """Rows (or with dim 1, decisions) of several parts, one after the other."""

    def join(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values, dim)

    log_probs = torch.cat([part.log_probs for part in parts], dim)
    return ActionStats(log_probs, join("mean"), join("scale"))
