"""Med-R1 (arXiv:2503.13939): GRPO on medical multiple choice with accuracy and format rewards."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from mmrl.advantages import group_normalized
from mmrl.data.prompts import load_prompts
from mmrl.mixing import weighted_sum
from mmrl.objectives.grpo import Clip, Grpo
from mmrl.policies.lora import add_lora
from mmrl.recipe import PipelineConfig, Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion

TEMPLATES = {
    "think": (
        "{question}\nReason inside <think> </think> tags first. Then write only the letter of the "
        "one right option inside <answer> </answer> tags."
    ),
    "no_think": "{question}\nWrite only the letter of the right option in <answer> </answer> tags.",
}


@pipelines.register("med_r1")
class MedR1(PipelineConfig):
    """Med-R1: train a vision-language model on medical questions with rule-based rewards."""

    pipeline: str = "med_r1"
    group_size: int = 4
    template: Literal["think", "no_think"] = "think"
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    clip: float = Field(default=0.2, gt=0)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.04))
    """k3 against the first policy with TRL's weight, as the release has it."""
    precision: Literal["float32", "bfloat16"] = "float32"

    def build(self) -> Recipe:
        """The parts of Med-R1."""
        from mmrl.models.qwen_vl import QwenVlModel
        from mmrl.policies.vlm import VlmPolicy

        policy = VlmPolicy(
            QwenVlModel.from_pretrained(self.model, dtype=getattr(torch, self.precision)),
            max_new_tokens=self.max_new_tokens,
            rows=self.train.rows,
            temperature=self.temperature,
            prompt_template=TEMPLATES[self.template],
        )
        if self.lora:
            add_lora(policy.module, self.lora, seed=self.train.seed)
        return Recipe(
            policy=policy,
            prompts=load_prompts(self.prompts),
            group_size=self.group_size,
            rewards=self.rewards,
            combine=lambda scores, step: weighted_sum(scores, self.rewards.weights),
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-4),
            objective=Grpo({"token": Clip(self.clip, self.clip)}),
            trust_region=self.trust_region,
        )
