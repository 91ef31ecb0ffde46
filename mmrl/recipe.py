"""All choices of a run: what a pipeline builds, and the sections every pipeline's config has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from mmrl.config import Config, ConfigError
from mmrl.data.prompts import load_prompts
from mmrl.mixing import Mixing
from mmrl.policies.base import Policy
from mmrl.policies.lora import LoraConfig
from mmrl.registry import Registry
from mmrl.reward import RewardTable
from mmrl.reward.base import unit_of
from mmrl.trust_region.schedule import AnchorKind, TrustRegion
from mmrl.types import Actions, Metrics, Prompt, Rollout

Combine = Callable[[Mapping[str, Float[Tensor, "P G"]], int], Float[Tensor, "P G"]]
Advantage = Callable[[Float[Tensor, "P G"]], Float[Tensor, "P G"]]
Watch = Callable[[Mapping[str, Float[Tensor, "P G"]], int], Mapping[str, Float[Tensor, "P G"]]]
Rescale = Callable[[Float[Tensor, "P G"], Mapping[str, Float[Tensor, "P G"]]], Float[Tensor, "P G"]]


@runtime_checkable
class Objective(Protocol):
    """A pure weighted sum over rows and decisions, so that micro-batches add up."""

    @property
    def couples_decisions(self) -> bool:
        """Whether the loss mixes the decisions of a row, as a square of their sum does."""
        ...

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]: ...


@dataclass(frozen=True)
class Recipe:
    """The parts one method is made of."""

    policy: Policy
    prompts: Sequence[Prompt]
    group_size: int
    rewards: RewardTable
    combine: Combine
    """Scores by name and the step -> one reward per sample."""
    advantage: Advantage
    objective: Objective
    trust_region: TrustRegion
    sample_from: AnchorKind | None = None
    """The anchor whose weights sample; None: the policy itself."""
    drop_overlong: bool = False
    """Whether answers that were cut off leave the loss, and their group's statistics."""
    rescale: Rescale | None = None
    """Advantages once more, seen with the raw scores by name; None: as they are."""
    watch: Watch | None = None
    """What the scores and the step say beside the rewards, by name, for the logs; None: nothing."""


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101) with a linear warm-up, then a constant or a falling rate."""

    lr: float = Field(gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls to 0 at the last optimizer step of the run."""
    max_grad_norm: float = Field(default=1.0, gt=0)


class TrainConfig(Config):
    """How long, how much at once, how often to save."""

    steps: int = Field(ge=1)
    """Rollouts; each has `updates_per_rollout` x `minibatches` optimizer steps."""
    prompts_per_step: int = Field(ge=1)
    """Prompts of one rollout over all processes."""
    rows: int = Field(ge=1)
    """Samples of one forward pass; a multiple of group_size."""
    optimizer: OptimizerConfig
    updates_per_rollout: int = Field(default=1, ge=1)
    """Passes over a rollout, each with an optimizer step for every minibatch."""
    minibatches: int = Field(default=1, ge=1)
    """Parts of a rollout, of whole groups, that have an optimizer step each."""
    stop_kl: float | None = Field(default=None, gt=0)
    """Passes over a rollout end where the mean KL(behavior || policy) of an update's decisions is
    above it (metric `ratio/kl`); that update is not taken. Of continuous actions it is a mean over
    D, as their log-probs are."""
    save_every: int = Field(default=10, ge=1)
    keep_checkpoints: int = Field(default=2, ge=2)
    """The newest checkpoints that stay; at least 2, so that a last good one is always there."""
    seed: int = 0
    alarm: Alarm | None = None
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Besides metrics.jsonl, which is always written."""


class Alarm(Config):
    """Watch for reward hacking: a trained reward that rises while a watched one falls.

    Both changes, the mean of the last `window` steps against the `window` before, must pass
    `threshold` of their standard errors. `raise_kl` multiplies every KL coefficient from then on;
    `roll_back` puts the weights of the periodic or EMA anchor back and clears the optimizer.
    """

    window: int = Field(default=10, ge=2)
    threshold: float = Field(default=2.0, gt=0)
    action: Literal["warn", "raise_kl", "stop", "roll_back"] = "warn"
    kl_factor: float = Field(default=2.0, gt=1)


class EvaluateConfig(Config):
    """Held-out prompts, scored before the first and after the last step."""

    prompts: str | list[str]
    count: int = Field(default=64, ge=2)
    """How many of the prompts; they are taken evenly from the file."""
    samples_per_prompt: int = Field(default=1, ge=1)
    rows: int = Field(default=64, ge=1)
    seed: int = 1234
    gallery: int = Field(default=12, ge=0)
    """Samples kept for the report, before and after."""


class PipelineConfig(Config):
    """The sections every pipeline shares. A method's own fields stand in its file."""

    normalizes_groups: ClassVar[bool] = True
    """Whether the method normalizes rewards by group: what GDPO does to each reward instead."""
    pipeline: str
    output: str
    prompts: str | list[str]
    """Files of prompts to train on, JSONL or parquet; a list, or names between commas."""
    model: str
    """A folder in the library's own layout, or a hub id."""
    lora: LoraConfig | None = None
    group_size: int
    rewards: RewardTable
    mixing: Mixing = Mixing()
    trust_region: TrustRegion = TrustRegion()
    train: TrainConfig
    evaluate: EvaluateConfig | None = None

    @field_validator("group_size")
    @classmethod
    def _group_has_a_mean(cls, value: int) -> int:
        if value < 2:
            raise ValueError(f"a group of {value} has no advantage; need >= 2")
        return value

    @model_validator(mode="after")
    def _rows_keep_groups_whole(self) -> PipelineConfig:
        if self.train.rows % self.group_size:
            raise ConfigError(
                f"{self.train.rows} rows cut a group of {self.group_size}; use a multiple of it",
                key="train.rows",
            )
        return self

    @model_validator(mode="after")
    def _evaluation_has_groups_to_compare(self) -> PipelineConfig:
        comparing = [n for n, one in self.rewards.rewards.items() if unit_of(one) == "group"]
        if comparing and self.evaluate and self.evaluate.samples_per_prompt == 1:
            raise ConfigError(
                f"reward '{comparing[0]}' compares the samples of a prompt: expected >= 2, such as "
                f"the group_size of {self.group_size}, got 1",
                key="evaluate.samples_per_prompt",
            )
        return self

    @model_validator(mode="after")
    def _mixing_fits_the_rewards(self) -> PipelineConfig:
        try:
            self.mixing.check(self.rewards.weights)
        except ConfigError as error:
            raise ConfigError(error.reason, key=f"mixing.{error.key}".rstrip(".")) from error
        return self

    @model_validator(mode="after")
    def _mixing_fits_the_method(self) -> PipelineConfig:
        if self.mixing.kind == "gdpo" and not self.normalizes_groups:
            raise ConfigError(
                f"gdpo ends in advantages normalized by group, and those of '{self.pipeline}' are "
                "not; use weighted_sum",
                key="mixing.kind",
            )
        return self

    @model_validator(mode="after")
    def _alarm_has_something_to_watch(self) -> PipelineConfig:
        alarm = self.train.alarm
        if alarm is None:
            return self
        if all(self.rewards.weights.values()):
            raise ConfigError("no reward is watched; give one weight 0", key="train.alarm")
        anchors = self.trust_region.anchors()
        if alarm.action == "roll_back" and not {"periodic", "ema"} & anchors.keys():
            raise ConfigError(
                "roll_back needs the periodic or the ema anchor", key="train.alarm.action"
            )
        return self

    def build(self) -> Recipe:
        """Load the model and choose the parts."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


pipelines: Registry[type[PipelineConfig]] = Registry("mmrl.pipelines", "pipeline")


def build_recipe(
    config: PipelineConfig,
    policy: Policy,
    *,
    advantage: Advantage,
    objective: Objective,
    combine: Combine | None = None,
    max_advantage: float = math.inf,
) -> Recipe:
    """The parts that a method chose, the rest as its config says.

    Rewards are mixed as `mixing` says unless the method brings a `combine` of its own. Advantages,
    the method's and GDPO's alike, are cut to +-`max_advantage`. ConfigError where a reward finds
    that it could not score, or a prompt's reference is of no use to a trained reward.
    """
    weights = config.rewards.weights

    def bounded(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
        return config.mixing.advantage(rewards, advantage).clamp(-max_advantage, max_advantage)

    prompts = load_prompts(config.prompts)
    config.rewards.check()
    config.rewards.check_references(prompts)
    return Recipe(
        policy=policy,
        prompts=prompts,
        group_size=config.group_size,
        rewards=config.rewards,
        combine=combine or (lambda scores, step: config.mixing.combine(scores, weights, step)),
        advantage=bounded,
        objective=objective,
        trust_region=config.trust_region,
    )
