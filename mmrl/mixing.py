"""(P, G) scores by name -> (P, G) rewards. NaN says that a sample could not be scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.advantages import batch_normalized, group_normalized
from mmrl.config import Config, ConfigError
from mmrl.trust_region.controller import Scheduled, scheduled_value

Advantage = Callable[[Float[Tensor, "P G"]], Float[Tensor, "P G"]]

RELEASED_ASKED_ABOVE = 0.2
"""SophiaVL-R1's code asks its judge only about outcomes of at least this; others think 0."""
RELEASED_TRIVIAL = (0.1, 0.9)
"""SophiaVL-R1's code leaves a group alone that lies wholly at or beyond one of these."""


class Gate(Config):
    """A sample whose score lies below (or above) a bound gets `reward`, whatever else it has."""

    below: float | None = None
    above: float | None = None
    reward: float = 0.0

    @model_validator(mode="after")
    def _one_bound(self) -> Gate:
        if (self.below is None) == (self.above is None):
            raise ValueError("a gate needs either 'below' or 'above'")
        return self

    def shut(self, scores: Float[Tensor, "P G"]) -> Bool[Tensor, "P G"]:
        """Where the bound is passed; never where the score is NaN."""
        return scores < self.below if self.below is not None else scores > (self.above or 0.0)


class Mixing(Config):
    """The `mixing:` section: how scores become one reward.

    `weighted_sum` adds them up; `gdpo` normalizes each within its group first, so that scales do
    not matter, and the sum over the batch after it (arXiv:2601.05242).
    """

    kind: Literal["weighted_sum", "gdpo"] = "weighted_sum"
    gates: dict[str, Gate] = Field(default_factory=dict)
    """By reward, watched ones too. A sample whose gate has no score has no reward."""
    anneal: dict[str, Scheduled] = Field(default_factory=dict)
    """By reward: a factor of its weight over training steps."""

    def check(self, weights: Mapping[str, float]) -> None:
        """ConfigError for a reward that is not there, or where every weight ends at 0."""
        for field, names in (("gates", self.gates), ("anneal", self.anneal)):
            for name in names:
                if name not in weights:
                    known = ", ".join(weights)
                    raise ConfigError(f"no such reward (known: {known})", key=f"{field}.{name}")
        lasting = [n for n, w in weights.items() if w and self._lowest(n) > 0]
        if not lasting:
            raise ConfigError("every trained reward is annealed to 0: nothing is left to train")

    def combine(
        self, scores: Mapping[str, Float[Tensor, "P G"]], weights: Mapping[str, float], step: int
    ) -> Float[Tensor, "P G"]:
        """One reward a sample; NaN where a trained reward or a gate has no score.

        Groups of one sample have no spread: there `gdpo` is the weighted sum.
        """
        now = {name: weight * self.factor(name, step) for name, weight in weights.items()}
        spread = next(iter(scores.values())).shape[1] > 1
        mix = normalized if self.kind == "gdpo" and spread else weighted_sum
        total = mix(scores, now)
        for name, gate in self.gates.items():
            total = torch.where(gate.shut(scores[name]), gate.reward, total)
            total = torch.where(scores[name].isnan(), torch.nan, total)
        return total

    def factor(self, name: str, step: int) -> float:
        """What the weight of a reward is multiplied with after `step` steps."""
        schedule = self.anneal.get(name)
        return 1.0 if schedule is None else scheduled_value(schedule, step)

    def advantage(self, rewards: Float[Tensor, "P G"], default: Advantage) -> Float[Tensor, "P G"]:
        """The method's own advantage, or GDPO's, which sees the whole batch at once."""
        return batch_normalized(rewards) if self.kind == "gdpo" else default(rewards)

    def _lowest(self, name: str) -> float:
        schedule = self.anneal.get(name)
        return 1.0 if schedule is None else min(schedule.start, schedule.end)


def weighted_sum(
    scores: Mapping[str, Float[Tensor, "P G"]], weights: Mapping[str, float]
) -> Float[Tensor, "P G"]:
    """sum_k w_k score_k; a reward of weight 0 never matters, a NaN in another makes the sum NaN."""
    absent = {name for name, weight in weights.items() if weight != 0} - scores.keys()
    if absent:
        raise ValueError(f"weights without scores: {', '.join(sorted(absent))}")
    used = [weights[name] * values for name, values in scores.items() if weights[name] != 0]
    if not used:
        raise ValueError("every weight is 0: nothing to sum")
    return torch.stack(used).sum(0)


def normalized(
    scores: Mapping[str, Float[Tensor, "P G"]],
    weights: Mapping[str, float],
    *,
    std: Literal["sample", "population"] = "sample",
    eps: float = 1e-4,
) -> Float[Tensor, "P G"]:
    """sum_k w_k (score_k - mean) / (std + eps), each reward by its own group (GDPO, 2601.05242).

    GDPO's advantage is `batch_normalized` of this.
    """
    tables = {name: values for name, values in scores.items() if weights[name] != 0}
    scaled = {
        name: torch.where(values.isnan(), torch.nan, group_normalized(values, std=std, eps=eps))
        for name, values in tables.items()
    }
    return weighted_sum(scaled, weights)


def trust_weighted(
    outcome: Float[Tensor, "P G"],
    thinking: Float[Tensor, "P G"],
    step: int,
    *,
    alpha: float = 0.3,
    decay_steps: float,
    threshold: float = 0.5,
    variant: Literal["paper", "released", "plain"] = "paper",
) -> tuple[Float[Tensor, "P G"], Float[Tensor, " P"]]:
    """R = outcome + gamma alpha exp(-step / decay_steps) thinking, and gamma of each group.

    gamma = min(1, exp(mean thinking of right answers - mean of wrong ones)), right: outcome >=
    threshold; 1 where a group has only one sort (Trust-GRPO, arXiv:2505.17018). `released` sets
    thinking to 0 where outcome < 0.2, so gamma is 1 on 0/1 outcomes, and gives gamma 0 to groups
    wholly >= 0.9 or <= 0.1. `plain` is the ablation: gamma is 1. ValueError for tables of two
    shapes and for groups without an answer.
    """
    _check_same_groups(outcome, thinking)
    if step < 0 or decay_steps <= 0:
        raise ValueError(f"need step >= 0 and decay_steps > 0, got {step} and {decay_steps}")
    if alpha < 0 or not 0 <= threshold <= 1:
        raise ValueError(f"need alpha >= 0 and 0 <= threshold <= 1, got {alpha} and {threshold}")
    _check_unit_range("outcome", outcome)
    _check_unit_range("thinking", thinking)
    if variant == "released":
        thinking = torch.where(outcome < RELEASED_ASKED_ABOVE, 0.0, thinking)
    known = ~(outcome.isnan() | thinking.isnan())
    right, wrong = known & (outcome >= threshold), known & (outcome < threshold)
    gap = _mean_where(right, thinking) - _mean_where(wrong, thinking)
    comparable = right.any(1) & wrong.any(1) & (variant != "plain")
    gamma = torch.where(comparable, gap.clamp(max=0).exp(), 1.0)
    if variant == "released":
        gamma = torch.where(_trivial(outcome), 0.0, gamma)
    factor = gamma * (alpha * math.exp(-step / decay_steps))
    bonus = torch.where(factor[:, None] == 0, 0.0, factor[:, None] * thinking)
    return outcome + bonus, gamma


def _mean_where(chosen: Bool[Tensor, "P G"], values: Float[Tensor, "P G"]) -> Float[Tensor, " P"]:
    return torch.where(chosen, values, 0.0).sum(1) / chosen.sum(1).clamp(min=1)


def _trivial(outcome: Float[Tensor, "P G"]) -> Bool[Tensor, " P"]:
    low, high = RELEASED_TRIVIAL
    unknown = outcome.isnan()
    return ((outcome <= low) | unknown).all(1) | ((outcome >= high) | unknown).all(1)


def _check_same_groups(outcome: Tensor, thinking: Tensor) -> None:
    if outcome.ndim != 2 or outcome.shape != thinking.shape:
        raise ValueError(
            "outcome and thinking must both be (P, G), a number for every answer, "
            f"got {tuple(outcome.shape)} and {tuple(thinking.shape)}"
        )
    if outcome.shape[1] == 0:
        raise ValueError(f"a group holds no answer: outcome is {tuple(outcome.shape)}")


def _check_unit_range(name: str, values: Float[Tensor, "P G"]) -> None:
    if bool(((values < 0) | (values > 1)).any()):
        low, high = values.nan_to_num(nan=0.5).aminmax()
        raise ValueError(f"{name} must lie in [0, 1], got {low:.3g} .. {high:.3g}; rescale it")
