"""Med-R1 (arXiv:2503.13939): GRPO on medical multiple choice with accuracy and format rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mmrl.advantages import group_normalized
from mmrl.objectives.grpo import Clip, Grpo
from mmrl.recipe import Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe

TEMPLATES = {
    "think": (
        "{question}\nReason inside <think> </think> tags first. Then write only the letter of the "
        "one right option inside <answer> </answer> tags."
    ),
    "no_think": "{question}\nWrite only the letter of the right option in <answer> </answer> tags.",
}


@pipelines.register("med_r1")
class MedR1(VlmPipelineConfig):
    """Med-R1: train a vision-language model on medical questions with rule-based rewards."""

    pipeline: str = "med_r1"
    group_size: int = 4
    template: Literal["think", "no_think"] = "think"
    clip: float = Field(default=0.2, gt=0)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.04))
    """k3 against the first policy with TRL's weight, as the release has it."""

    def build(self) -> Recipe:
        """The parts of Med-R1."""
        return vlm_recipe(
            self,
            build_vlm_policy(self, template=TEMPLATES[self.template]),
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-4),
            objective=Grpo({"token": Clip(self.clip, self.clip)}),
        )
