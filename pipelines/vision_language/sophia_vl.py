"""SophiaVL-R1 (arXiv:2505.17018): Trust-GRPO, a judge of the reasoning beside the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.mixing import Gate, Mixing, trust_weighted
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.recipe import Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

TEMPLATE = (
    "{question}\nThink it through as a person would, question yourself and look again where you "
    "are not sure, all inside <think> </think> tags. Then write only the answer inside <answer> "
    "</answer> tags."
)


@pipelines.register("sophia_vl")
class SophiaVl(VlmPipelineConfig):
    """SophiaVL-R1: the outcome, and a thinking reward that counts as far as it can be trusted.

    R = outcome + gamma alpha exp(-s / decay_steps) thinking, alpha the weight of the thinking
    reward, s the step from 1 on. The outcome is the weighted mean of all other trained rewards
    behind the gates of `mixing`. gamma is below 1 in a group whose wrong answers the judge likes
    better than its right ones.
    """

    pipeline: str = "sophia_vl"
    thinking: str = "thinking_reward"
    """The reward that judges the reasoning, in [0, 1]; its weight is alpha (0.3 in the paper)."""
    mixing: Mixing = Mixing(gates={"answer_format": Gate(below=0.5)})
    """An answer without its blocks has outcome 0; its thinking reward stays."""
    trust: Literal["paper", "released", "plain"] = "paper"
    """How gamma is found: `released` is 1 on 0/1 outcomes, `plain` is 1 always."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Outcome from which an answer counts as right."""
    decay_steps: float | None = Field(default=None, gt=0)
    """T of the annealing; null: all steps of the run (paper). The release's script has 12000."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.04))
    """k3 against the first policy."""

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _has_a_judge_and_an_outcome(self) -> SophiaVl:
        weights = self.rewards.weights
        if weights.get(self.thinking, 0.0) <= 0:
            raise ConfigError(
                f"expected a reward '{self.thinking}' of weight > 0, the one that judges the "
                f"reasoning (rewards: {', '.join(weights)})",
                key="thinking",
            )
        others = {k: w for k, w in weights.items() if w != 0 and k != self.thinking}
        if not others or min(others.values()) < 0:
            raise ConfigError(
                f"expected an outcome: rewards of weight > 0 beside {self.thinking}, got {others}",
                key="rewards",
            )
        if self.mixing.kind != "weighted_sum":
            raise ConfigError(
                f"trust needs outcomes in [0, 1], got {self.mixing.kind}; use weighted_sum",
                key="mixing.kind",
            )
        if self.thinking in self.mixing.anneal:
            raise ConfigError(
                "the thinking reward fades by exp(-s / decay_steps); set decay_steps, and its "
                "weight for alpha",
                key=f"mixing.anneal.{self.thinking}",
            )
        return self

    def outcome_weights(self) -> dict[str, float]:
        """Shares of the rewards that make up the outcome; they add up to 1."""
        weights = {**self.rewards.weights, self.thinking: 0.0}
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def trusted(
        self, scores: Mapping[str, Float[Tensor, "P G"]], step: int
    ) -> tuple[Float[Tensor, "P G"], Float[Tensor, " P"]]:
        """Rewards after `step` steps, and gamma of each group."""
        return trust_weighted(
            self.mixing.combine(scores, self.outcome_weights(), step),
            scores[self.thinking],
            step + 1,
            alpha=self.rewards.weights[self.thinking],
            decay_steps=self.decay_steps or self.train.steps,
            threshold=self.threshold,
            variant=self.trust,
        )

    def build(self) -> Recipe:
        """The parts of SophiaVL-R1."""
        recipe = vlm_recipe(
            self,
            build_vlm_policy(self, template=TEMPLATE),
            combine=lambda scores, step: self.trusted(scores, step)[0],
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-6),
            objective=Grpo({"token": Clip(self.clip, self.clip)}),
        )
        return replace(recipe, watch=self.watch)

    def watch(
        self, scores: Mapping[str, Float[Tensor, "P G"]], step: int
    ) -> dict[str, Float[Tensor, "P G"]]:
        """gamma of each answer's group, for the logs."""
        rewards, gamma = self.trusted(scores, step)
        return {"trust/gamma": gamma[:, None].expand_as(rewards)}
