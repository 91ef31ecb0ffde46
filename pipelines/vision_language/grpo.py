"""GRPO (arXiv:2402.03300) for any vision-language model and any rewards."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field, model_validator

from mmrl.advantages import (
    batch_scaled,
    best_of_group,
    centered,
    group_normalized,
    leave_one_out,
)
from mmrl.config import ConfigError
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.surrogate import Surrogate
from mmrl.objectives.surrogate_kinds import SurrogateConfig
from mmrl.recipe import Advantage, Recipe, pipelines
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

ADVANTAGES: dict[str, Advantage] = {
    "group_normalized": group_normalized,
    "centered": centered,
    "leave_one_out": leave_one_out,
    "batch_scaled": partial(batch_scaled, std="sample"),
    "best_of_group": best_of_group,
}
CLIP_KEYS = {"clip_low", "clip_high", "clip_dual"}


@pipelines.register("grpo")
class VlmGrpo(VlmPipelineConfig):
    """Plain GRPO: the method of CRPO, CAD-RL, Prompt4Trust and ReFIne, which differ by rewards.

    DAPO (arXiv:2503.14476) is `clip_high: 0.28, weighting: decision, drop_overlong: true`, Dr. GRPO
    (arXiv:2503.20783) `advantage: centered, weighting: length`, RLOO (arXiv:2402.14740)
    `advantage: leave_one_out`, GSPO (arXiv:2507.18071) `surrogate: {kind: gspo}`.
    """

    pipeline: str = "grpo"
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.2, gt=0)
    """CAD-RL's trust-region stretch (arXiv:2508.10118, eq. 7) is clip_low 0.4, clip_high 0.8."""
    clip_dual: float | None = Field(default=None, gt=1)
    surrogate: SurrogateConfig | None = None
    """What stands in the place of the clip; None: `clip_low`, `clip_high` and `clip_dual`."""
    advantage: Literal[
        "group_normalized", "centered", "leave_one_out", "batch_scaled", "best_of_group"
    ] = "group_normalized"

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _gdpo_normalizes(self) -> VlmGrpo:
        if self.mixing.kind == "gdpo" and self.advantage != "group_normalized":
            raise ConfigError(
                f"gdpo normalizes by group, which would replace '{self.advantage}'; use "
                "group_normalized, or mixing.kind weighted_sum",
                key="advantage",
            )
        return self

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _one_bound_on_the_ratio(self) -> VlmGrpo:
        unused = sorted(CLIP_KEYS & self.model_fields_set)
        if self.surrogate and unused:
            raise ConfigError(
                f"'{self.surrogate.kind}' takes the place of the clip; set its own bounds in "
                "surrogate, or leave surrogate out",
                key=unused[0],
            )
        return self

    def build(self) -> Recipe:
        """The parts of GRPO."""
        clip = Clip(self.clip_low, self.clip_high, self.clip_dual)
        surrogate: Surrogate = self.surrogate or clip
        return vlm_recipe(
            self,
            build_vlm_policy(self),
            advantage=ADVANTAGES[self.advantage],
            objective=Grpo({"token": surrogate}),
        )
