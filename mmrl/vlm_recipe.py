"""What the pipelines of vision-language models share: their sections, their policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from mmrl.data.prompts import load_prompts
from mmrl.policies.base import Policy
from mmrl.policies.lora import add_lora
from mmrl.recipe import Advantage, Combine, Objective, PipelineConfig, Recipe

if TYPE_CHECKING:
    from mmrl.policies.vlm import VlmPolicy


class VlmPipelineConfig(PipelineConfig):
    """The sections every VLM pipeline has besides its method's own."""

    group_size: int = 8
    prompt_template: str | None = None
    """What is asked, with {question} for the prompt's text; null: the method's own."""
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    weighting: Literal["sequence", "decision"] = "sequence"
    """Whether every answer counts alike in the loss (GRPO) or every token (DAPO)."""
    precision: Literal["float32", "bfloat16"] = "float32"


def build_vlm_policy(config: VlmPipelineConfig, *, template: str = "{question}") -> VlmPolicy:
    """The model of the config as a policy, with its adapters if it has any.

    `template` is the method's own; the config's `prompt_template` goes before it.
    """
    from mmrl.models.vlm_loader import load_vlm
    from mmrl.policies.vlm import VlmPolicy

    policy = VlmPolicy(
        load_vlm(config.model, dtype=getattr(torch, config.precision)),
        max_new_tokens=config.max_new_tokens,
        rows=config.train.rows,
        temperature=config.temperature,
        prompt_template=config.prompt_template or template,
        weighting=config.weighting,
    )
    if config.lora:
        add_lora(policy.module, config.lora, seed=config.train.seed)
    return policy


def vlm_recipe(
    config: VlmPipelineConfig,
    policy: Policy,
    *,
    advantage: Advantage,
    objective: Objective,
    combine: Combine | None = None,
) -> Recipe:
    """The parts that a method chose; rewards are mixed as the config says unless it does."""
    weights = config.rewards.weights
    return Recipe(
        policy=policy,
        prompts=load_prompts(config.prompts),
        group_size=config.group_size,
        rewards=config.rewards,
        combine=combine or (lambda scores, step: config.mixing.combine(scores, weights, step)),
        advantage=lambda rewards: config.mixing.advantage(rewards, advantage),
        objective=objective,
        trust_region=config.trust_region,
    )
