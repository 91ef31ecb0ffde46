"""The `rewards:` section: rewards by name, each with a weight and a fault policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from torch import Tensor

from mmrl.config import Config, ConfigError, parse
from mmrl.reward.base import Reward, RewardConfig, reward_class
from mmrl.reward.faults import FaultMemory, FaultPolicy
from mmrl.reward.references import check_references
from mmrl.reward.scored import Scored
from mmrl.reward.scorer import Scorer
from mmrl.reward.scoring import TableScoring
from mmrl.types import Metrics, Prompt, Rollout, Sample


class RewardTable:
    """The `rewards:` section: rewards by name with a weight each; weight 0 is watched only.

    An entry names its reward by its own name, or by `reward: name` or `path: file.py:name`.
    `faults` beside the names is the policy of all rewards, `faults` inside one changes it there.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float],
        faults: Mapping[str, FaultPolicy] | None = None,
        sources: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.rewards = dict(rewards)
        self.weights = dict(weights)
        self.sources = dict(sources or {})
        """`reward: name` or `path: file.py:name` of the rewards that are not their own name."""
        self.short_groups = dict.fromkeys(self.rewards, 0.0)
        policies = faults or {}
        self.scorers = {
            name: Scorer(
                name, reward, policies.get(name, FaultPolicy()), waits=self.weights[name] != 0
            )
            for name, reward in self.rewards.items()
        }

    @classmethod
    def parse(cls, section: Any) -> RewardTable:
        """Build every reward of the section; ConfigError names the first wrong entry."""
        if isinstance(section, RewardTable):
            return section
        entries = dict(section) if isinstance(section, Mapping) else {}
        default = entries.pop("faults", None) or {}
        if not entries:
            raise ConfigError("expected a section with at least one reward by name")
        _policy("faults", default)
        built, weights, faults, sources = {}, {}, {}, {}
        for name, entry in entries.items():
            fields = dict(entry or {}) if isinstance(entry, Mapping | None) else {"weight": entry}
            weights[name] = _weight(name, fields.pop("weight", 1.0))
            own = fields.pop("faults", None) or {}
            keys = [key for key in ("reward", "path") if key in fields]
            sources[name] = {key: str(fields.pop(key)) for key in keys}
            built[name] = _build(name, sources[name], fields)
            usual = getattr(built[name], "usual_faults", {})
            faults[name] = _policy(f"{name}.faults", {**usual, **default, **own})
        if not any(weights.values()):
            raise ConfigError("every weight is 0: nothing is trained; give one reward a weight")
        return cls(built, weights, faults, sources)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.describe),
        )

    def describe(self) -> dict[str, dict[str, Any]]:
        """The section as plain data, with every default filled in."""
        described = {}
        for name, reward in self.rewards.items():
            fields = reward.model_dump(mode="json") if isinstance(reward, Config) else {}
            described[name] = {
                "weight": self.weights[name],
                **self.sources.get(name, {}),
                **fields,
                "faults": self.scorers[name].policy.model_dump(mode="json"),
            }
        return described

    def score_samples(
        self, samples: Sequence[Sample], group_size: int = 1
    ) -> dict[str, Float[Tensor, " B"]]:
        """Raw scores by reward; a sample that cannot be scored is NaN, never a number.

        RewardError where a reward fails on more samples than its budget allows.
        """
        return {name: one.values for name, one in self.judge(samples, group_size).items()}

    def judge(
        self,
        samples: Sequence[Sample],
        group_size: int = 1,
        *,
        names: Sequence[str] | None = None,
        stops: bool = True,
    ) -> dict[str, Scored]:
        """Scores by reward with what became of each sample, as `scoring` takes them."""
        samples = list(samples)
        with self.scoring(group_size, names=names, stops=stops) as scoring:
            return scoring.finish(samples)

    @contextmanager
    def scoring(
        self,
        group_size: int = 1,
        *,
        names: Sequence[str] | None = None,
        stops: bool = True,
    ) -> Iterator[TableScoring]:
        """A batch to score, in parts or at once; `names`: by these rewards only.

        With `stops` off no number of failures ends it, as in evaluations: each sample tells its
        own. What is under way when the block is left, by an error say, is cancelled.
        """
        chosen = [name for name in self.rewards if names is None or name in names]
        scoring = TableScoring(
            {name: self.scorers[name].begin(group_size, stops=stops) for name in chosen}
        )
        try:
            yield scoring
        finally:
            scoring.cancel()

    def counts(self) -> Metrics:
        """What the last scoring met, as `reward/<name>/<what>`."""
        told = {name: scorer.counts() for name, scorer in self.scorers.items()}
        return {
            f"reward/{name}/{what}": number
            for name, counted in told.items()
            for what, number in {**counted, "short_group": self.short_groups[name]}.items()
        }

    def memory(self) -> dict[str, FaultMemory]:
        """What breakers and budgets have seen so far, by reward."""
        return {name: scorer.memory() for name, scorer in self.scorers.items()}

    def recall(self, memory: Mapping[str, FaultMemory]) -> None:
        """Let a new table go on as remembered; rewards that are not remembered begin anew."""
        for name in self.scorers.keys() & memory.keys():
            self.scorers[name].recall(memory[name])

    def check(self) -> None:
        """ConfigError for the first reward, trained or watched, that could not score anything."""
        for name, reward in self.rewards.items():
            if not isinstance(reward, RewardConfig):
                continue
            try:
                reward.check()
            except ConfigError as error:
                key = f"rewards.{name}.{error.key}".rstrip(".")
                raise ConfigError(error.reason, key=key) from error

    def check_references(self, prompts: Sequence[Prompt]) -> None:
        """ConfigError names the first prompt whose samples a trained reward could never score."""
        trained = [pair for pair in self.rewards.items() if self.weights[pair[0]]]
        check_references(trained, prompts)

    def differentiable(self, samples: Sequence[Sample]) -> Float[Tensor, " B"]:
        """sum weight * score of the trained rewards, with gradients to the pixels."""
        self.check_differentiable()
        total = torch.zeros(len(samples))
        for name, weight in self.weights.items():
            if weight:
                total = total + weight * self.rewards[name](samples)
        return total

    def check_differentiable(self) -> None:
        """ConfigError names a trained reward that has no gradient to the pixels."""
        for name, reward in self.rewards.items():
            smooth = isinstance(reward, RewardConfig) and reward.differentiable
            if self.weights[name] and not smooth:
                raise ConfigError(
                    "is not differentiable in the pixels; give it weight 0, or choose a method "
                    "that needs no gradient of the reward",
                    key=f"rewards.{name}",
                )

    def score(self, rollout: Rollout, scoring: TableScoring) -> dict[str, Float[Tensor, "P G"]]:
        """Raw scores by reward, one row a prompt, at the end of a rollout's `scoring`.

        A group with too few scores loses those it has. RewardError where a reward fails on more
        samples than its budget allows.
        """
        found = scoring.finish(rollout.samples)
        return {
            name: self._without_short_groups(name, one.values.view(-1, rollout.group_size))
            for name, one in found.items()
        }

    def _without_short_groups(
        self, name: str, scores: Float[Tensor, "P G"]
    ) -> Float[Tensor, "P G"]:
        known = ~scores.isnan()
        short = known.sum(1, keepdim=True) < self.scorers[name].policy.least_group
        self.short_groups[name] = (known & short).sum().item()
        return torch.where(short, torch.nan, scores)


def _policy(key: str, fields: Any) -> FaultPolicy:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"expected a section, got {fields!r}", key=key)
    try:
        return parse(FaultPolicy, fields)
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"{key}.{error.key}") from error


def _weight(name: str, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"expected a number, got {weight!r}", key=f"{name}.weight")
    return float(weight)


def _build(name: str, source: Mapping[str, str], fields: dict[str, Any]) -> Reward:
    where = "".join(f".{key}" for key in list(source)[:1])
    if len(source) > 1:
        raise ConfigError("give `reward` or `path`, not both", key=name)
    try:
        cls = reward_class(source.get("reward", name), source.get("path"))
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error), key=f"{name}{where}") from error
    try:
        return cast(Reward, parse(cls, fields))
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"{name}.{error.key}") from error
