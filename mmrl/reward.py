"""Rewards: what scores a finished sample, how they are named in a config, what a failure means."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from torch import Tensor

from mmrl.config import Config, ConfigError, parse
from mmrl.registry import Registry, UnknownNameError, load_file
from mmrl.types import Rollout, Sample

logger = logging.getLogger(__name__)


@runtime_checkable
class Reward(Protocol):
    """One number per sample; NaN where the sample could not be scored."""

    def __call__(self, samples: Sequence[Any]) -> Float[Tensor, " B"]: ...


class RewardConfig(Config):
    """Base of a reward: its fields are its config. Heavy models load on the first call."""

    differentiable: ClassVar[bool] = False
    """Whether gradients flow from the score to the pixels."""

    def __call__(self, samples: Sequence[Any]) -> Float[Tensor, " B"]:
        raise NotImplementedError(f"{type(self).__name__} does not score")


rewards: Registry[type[RewardConfig]] = Registry("mmrl.rewards", "reward")


class RewardError(RuntimeError):
    """A reward that could score nothing at all: there is nothing to learn from."""


def reward_class(name: str, path: str | None = None) -> type[RewardConfig]:
    """The class behind a name, or behind `file.py:Name`."""
    if path is None:
        return rewards.get(name)
    file, _, attribute = path.partition(":")
    module = load_file(Path(file))
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, RewardConfig)):
        raise ValueError(f"{path}: expected file.py:Name of a RewardConfig class")
    return found


def load_reward(name: str, **fields: Any) -> Reward:
    """The registered reward `name` with its fields set; UnknownNameError names the nearest one."""
    return parse(reward_class(name), fields)


class RewardTable:
    """The `rewards:` section: rewards by name with a weight each; weight 0 is watched only."""

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
        self.rewards = dict(rewards)
        self.weights = dict(weights)

    @classmethod
    def parse(cls, section: Any) -> RewardTable:
        """Build every reward of the section; ConfigError names the first wrong entry."""
        if isinstance(section, RewardTable):
            return section
        if not isinstance(section, Mapping) or not section:
            raise ConfigError("expected a section with at least one reward by name")
        built, weights = {}, {}
        for name, entry in section.items():
            fields = dict(entry or {}) if isinstance(entry, Mapping | None) else {"weight": entry}
            weights[name] = _weight(name, fields.pop("weight", 1.0))
            built[name] = _build(name, fields.pop("path", None), fields)
        if not any(weights.values()):
            raise ConfigError("every weight is 0: nothing is trained; give one reward a weight")
        return cls(built, weights)

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
            described[name] = {"weight": self.weights[name], **fields}
        return described

    def score_samples(self, samples: Sequence[Sample]) -> dict[str, Float[Tensor, " B"]]:
        """Raw scores by reward; a sample that cannot be scored is NaN, never a number."""
        return {name: score(name, reward, samples) for name, reward in self.rewards.items()}

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

    def score(self, rollout: Rollout) -> dict[str, Float[Tensor, "P G"]]:
        """Raw scores by reward, one row a prompt."""
        scores = self.score_samples(rollout.samples)
        return {name: values.view(-1, rollout.group_size) for name, values in scores.items()}


def score(name: str, reward: Reward, samples: Sequence[Sample]) -> Float[Tensor, " B"]:
    """Scores of one reward; where the batch raises, each sample is tried alone, failures are NaN.

    RewardError when every sample raises: that is a broken reward, not a hard sample.
    """
    try:
        values = _checked(name, reward(samples), len(samples))
    except Exception as error:
        values = torch.stack([_score_one(name, reward, sample) for sample in samples])
        if torch.isnan(values).all():
            message = f"reward '{name}' failed on all {len(samples)} samples: {error}"
            raise RewardError(message) from error
    return torch.where(values.isfinite(), values, torch.nan)


def _score_one(name: str, reward: Reward, sample: Sample) -> Float[Tensor, ""]:
    try:
        return _checked(name, reward([sample]), 1)[0]
    except Exception as error:
        logger.warning("reward '%s' could not score a sample: %s", name, error)
        return torch.tensor(torch.nan)


def _checked(name: str, values: Tensor, count: int) -> Float[Tensor, " B"]:
    if values.shape != (count,):
        raise ValueError(f"reward '{name}' returned {tuple(values.shape)} for {count} samples")
    return values.detach().float().cpu()


def _weight(name: str, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"expected a number, got {weight!r}", key=f"{name}.weight")
    return float(weight)


def _build(name: str, path: str | None, fields: dict[str, Any]) -> Reward:
    try:
        cls = reward_class(name, path)
    except UnknownNameError as error:
        raise ConfigError(str(error), key=name) from error
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error), key=f"{name}.path") from error
    try:
        return cast(Reward, parse(cls, fields))
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"{name}.{error.key}") from error
