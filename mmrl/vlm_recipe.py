"""What the pipelines of vision-language models share: their sections, their policy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator

from mmrl.config import ConfigError
from mmrl.policies.base import Policy
from mmrl.policies.engine_config import ParityConfig, VllmConfig
from mmrl.policies.lora import add_lora
from mmrl.recipe import Advantage, Combine, Objective, PipelineConfig, Recipe, build_recipe

if TYPE_CHECKING:
    from mmrl.models.vlm import VlmModel
    from mmrl.policies.vllm_engine import VllmEngine
    from mmrl.policies.vlm import VlmPolicy


class VlmPipelineConfig(PipelineConfig):
    """The sections every VLM pipeline has besides its method's own."""

    group_size: int = 8
    prompt_template: str | None = None
    """What is asked, with {question} for the prompt's text; null: the method's own."""
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    eval_temperature: float = Field(default=0.0, ge=0)
    """Evaluation draws at it, which pass@k needs; 0 takes the likeliest token."""
    weighting: Literal["sequence", "decision", "length"] = "sequence"
    """Whether every answer counts alike in the loss (GRPO), every token (DAPO), or every token of
    rows x max_new_tokens, whatever was written (Dr. GRPO)."""
    drop_overlong: bool = False
    """Whether answers that reach max_new_tokens leave the loss (overlong filtering)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["none", "4bit"] = "none"
    """The text model's frozen weights in four bits, for `lora` to learn beside (QLoRA)."""
    freeze_vision: bool = False
    """Nothing between pixels and text model learns; it then runs once a rollout."""
    gradient_checkpointing: bool = False
    """Layers run again in the backward pass in the place of keeping what they made."""
    rollout_engine: Literal["transformers", "vllm"] = "transformers"
    vllm: VllmConfig = VllmConfig()
    parity: ParityConfig = ParityConfig()
    """What the log-probs of vLLM are held to."""

    @model_validator(mode="after")
    def _four_bits_do_not_learn(self) -> VlmPipelineConfig:
        if self.quantization == "none":
            return self
        if self.lora is None:
            raise ConfigError(
                "four-bit weights cannot learn: add a lora section", key="quantization"
            )
        if self.rollout_engine == "vllm":
            raise ConfigError(
                "vLLM would sample from the weights before they were quantized; use transformers",
                key="rollout_engine",
            )
        return self

    @model_validator(mode="after")
    def _samples_of_a_prompt_differ(self) -> VlmPipelineConfig:
        asked = self.evaluate.samples_per_prompt if self.evaluate else 1
        if asked > 1 and self.eval_temperature == 0:
            raise ConfigError(
                f"{asked} samples of a prompt are one and the same answer at eval_temperature 0; "
                "set eval_temperature above 0, or samples_per_prompt to 1",
                key="evaluate.samples_per_prompt",
            )
        return self


def build_vlm_policy(config: VlmPipelineConfig, *, template: str = "{question}") -> VlmPolicy:
    """The model of the config as a policy, with its adapters and its engine if it has any.

    `template` is the method's own; the config's `prompt_template` goes before it.
    """
    from mmrl.policies.vlm import VlmPolicy

    model = build_vlm(config)
    return VlmPolicy(
        model,
        max_new_tokens=config.max_new_tokens,
        rows=config.train.rows,
        temperature=config.temperature,
        eval_temperature=config.eval_temperature,
        prompt_template=config.prompt_template or template,
        weighting=config.weighting,
        gradient_checkpointing=config.gradient_checkpointing,
        engine=_start_vllm(config, model) if config.rollout_engine == "vllm" else None,
        parity=config.parity,
    )


def build_vlm(config: VlmPipelineConfig) -> VlmModel:
    """The model of the config, of which only what the config says learns."""
    from mmrl.models.vlm_loader import load_vlm

    dtype = getattr(torch, config.precision)
    model = load_vlm(config.model, dtype=dtype, quantization=config.quantization)
    choose_trained(model, config)
    return model


def choose_trained(model: VlmModel, config: VlmPipelineConfig) -> None:
    """Add the adapters of the config, or freeze what it wants frozen."""
    if config.lora:
        without = model.vision if config.freeze_vision else ()
        add_lora(model.module, config.lora, seed=config.train.seed, without=without)
    elif config.freeze_vision:
        model.freeze_vision()


def _start_vllm(config: VlmPipelineConfig, model: VlmModel) -> VllmEngine:
    from mmrl.policies.vllm_engine import VllmEngine

    return VllmEngine.start(
        config.model,
        model,
        config.vllm,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        lora_rank=config.lora.rank if config.lora else None,
    )


def vlm_recipe(
    config: VlmPipelineConfig,
    policy: Policy,
    *,
    advantage: Advantage,
    objective: Objective,
    combine: Combine | None = None,
) -> Recipe:
    """`build_recipe`, with overlong answers dropped where the config says so."""
    recipe = build_recipe(config, policy, advantage=advantage, objective=objective, combine=combine)
    return replace(recipe, drop_overlong=config.drop_overlong)
