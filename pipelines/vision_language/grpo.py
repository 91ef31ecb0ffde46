"""GRPO (arXiv:2402.03300) for any vision-language model and any rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mmrl.advantages import centered, group_normalized, leave_one_out
from mmrl.config import ConfigError
from mmrl.objectives.grpo import Clip, Grpo
from mmrl.recipe import Advantage, Recipe, pipelines
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

ADVANTAGES: dict[str, Advantage] = {
    "group_normalized": group_normalized,
    "centered": centered,
    "leave_one_out": leave_one_out,
}


@pipelines.register("grpo")
class VlmGrpo(VlmPipelineConfig):
    """Plain GRPO: the method of CRPO, CAD-RL, Prompt4Trust and ReFIne, which differ by rewards.

    DAPO (arXiv:2503.14476) is `clip_high: 0.28, weighting: decision, drop_overlong: true`, Dr. GRPO
    (arXiv:2503.20783) `advantage: centered`, RLOO `advantage: leave_one_out`.
    """

    pipeline: str = "grpo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.2, gt=0)
    """CAD-RL's trust-region stretch (arXiv:2508.10118, eq. 7) is clip_low 0.4, clip_high 0.8."""
    clip_dual: float | None = Field(default=None, gt=1)
    advantage: Literal["group_normalized", "centered", "leave_one_out"] = "group_normalized"

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _gdpo_normalizes(self) -> VlmGrpo:
        if self.mixing.kind == "gdpo" and self.advantage != "group_normalized":
            raise ConfigError(
                f"gdpo normalizes by group, which would replace '{self.advantage}'; use "
                "group_normalized, or mixing.kind weighted_sum",
                key="advantage",
            )
        return self

    def build(self) -> Recipe:
        """The parts of GRPO."""
        return vlm_recipe(
            self,
            build_vlm_policy(self),
            advantage=ADVANTAGES[self.advantage],
            objective=Grpo({"token": Clip(self.clip_low, self.clip_high, self.clip_dual)}),
        )
