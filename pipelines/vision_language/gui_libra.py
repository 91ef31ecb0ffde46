"""GUI-Libra (arXiv:2602.22190): GRPO on single GUI steps, near its start, softer on failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.advantages import check_softening, group_normalized, soften_negatives
from mmrl.config import Config, ConfigError
from mmrl.data.gui import check_references
from mmrl.mixing import weighted_sum
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.recipe import Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

SUCCESS = "gui_step"
"""The reward that says whether a step is right."""
ACTION = (
    'inside <answer> </answer> tags: a JSON object with the keys "action_description", '
    '"action_type", "value" and "point_2d" ([x, y], or "none").'
)
TEMPLATES = {
    "think": "{question}\nReason inside <think> </think> tags first. Then write the next action "
    + ACTION,
    "thinking": "{question}\nReason inside <thinking> </thinking> tags first. Then write the next "
    "action " + ACTION,
    "grounding": "{question}\nWrite the action " + ACTION,
}


class Softening(Config):
    """A negative advantage times min(initial + slope p, 1), p the group's share of right steps.

    The paper's values: 0.9, 0.5 (3B), 1.4, -0.5 (7B), 0.5, 1.5 (4B), 0.5, 2.0 (8B). `released`:
    p is the mean reward, its format part included, and the factor is kept above 0.
    """

    initial: float = 0.9
    slope: float = 0.5
    variant: Literal["paper", "released"] = "paper"

    @model_validator(mode="after")
    def _factor_is_no_reward(self) -> Softening:
        try:
            check_softening(self.initial, self.slope, self.variant)
        except ValueError as error:
            raise ConfigError(str(error), key="initial") from error
        return self


@pipelines.register("gui_libra")
class GuiLibra(VlmPipelineConfig):
    """GUI-Libra: KL-regularized GRPO on recorded GUI steps, negatives scaled by success."""

    pipeline: str = "gui_libra"
    template: Literal["think", "thinking", "grounding"] = "think"
    clip: float = Field(default=0.2, gt=0, lt=1)
    clip_dual: float | None = Field(default=3.0, gt=1)
    weighting: Literal["sequence", "decision", "length"] = "decision"
    softening: Softening | None = Softening()
    """Null: plain GRPO."""
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.001))
    """k3 against the first policy; the paper has 0.005 for 7B."""

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _rewards_fit(self) -> GuiLibra:
        weights = self.rewards.weights
        if self.softening is not None and SUCCESS not in weights:
            raise ConfigError(
                f"softening needs the reward {SUCCESS} to know a group's success; add it, "
                "with weight 0 if it should only be watched, or set softening=null",
                key="rewards",
            )
        if not 0 <= weights.get("gui_format", 0.0) <= 1:
            raise ConfigError(
                f"must lie in [0, 1], got {weights['gui_format']}", key="rewards.gui_format.weight"
            )
        return self

    def build(self) -> Recipe:
        """The parts of GUI-Libra."""
        from mmrl.models.frames import check_frames

        policy = build_vlm_policy(self, template=TEMPLATES[self.template])
        check_frames(self.rewards.rewards, policy.model.processor)
        recipe = vlm_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-6),
            objective=Grpo({"token": Clip(self.clip, self.clip, self.clip_dual)}),
        )
        check_references(recipe.prompts)
        return replace(recipe, rescale=None if self.softening is None else self._soften)

    def _soften(
        self, advantages: Float[Tensor, "P G"], scores: Mapping[str, Float[Tensor, "P G"]]
    ) -> Float[Tensor, "P G"]:
        assert self.softening is not None
        success = scores[SUCCESS]
        if self.softening.variant == "released":
            success = weighted_sum(scores, self.rewards.weights).clamp(0.0, 1.0)
        return soften_negatives(
            advantages,
            success.nanmean(1),
            initial=self.softening.initial,
            slope=self.softening.slope,
            variant=self.softening.variant,
        )
