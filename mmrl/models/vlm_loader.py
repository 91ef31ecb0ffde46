"""Which adapter reads a vision-language model, by the `model_type` of its config."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from mmrl.config import ConfigError
from mmrl.models.folder import check_model_folder
from mmrl.models.hub import local_only, one_line_errors
from mmrl.models.quantize import Quantization, four_bit
from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_family import VlmFamily

ADAPTERS = {
    "idefics3": "mmrl.models.smolvlm:SMOLVLM",
    "internvl": "mmrl.models.internvl:INTERNVL",
    "qwen2_5_vl": "mmrl.models.qwen_vl:QWEN_VL",
    "qwen2_vl": "mmrl.models.qwen_vl:QWEN_VL",
    "qwen3_vl": "mmrl.models.qwen3_vl:QWEN3_VL",
    "smolvlm": "mmrl.models.smolvlm:SMOLVLM",
}
"""Adapter of every `model_type` that config.json may name."""


def load_vlm(model: str, *, dtype: torch.dtype, quantization: Quantization = "none") -> VlmModel:
    """The model in a folder (or hub id) behind the adapter of its family.

    With `4bit` the text model's linear layers are quantized; vision tower and output layer are not.
    ConfigError for a missing folder, a hub id that is neither in the cache nor within reach, a
    family without an adapter, and a missing processor.
    """
    check_model_folder(model, "config.json")
    local = local_only(model)
    with one_line_errors(model):
        chosen = AutoConfig.from_pretrained(model, local_files_only=local)
    family = adapter_of(chosen.model_type, model)
    more: dict[str, Any] = {}
    if quantization == "4bit":
        whole = ["lm_head", *(f"model.{name}" for name in family.vision)]
        more["quantization_config"] = four_bit(dtype, without=whole)
        more["device_map"] = {"": torch.cuda.current_device()}
    with one_line_errors(model):
        module = AutoModelForImageTextToText.from_pretrained(
            model, dtype=dtype, local_files_only=local, **more
        )
    try:
        processor = AutoProcessor.from_pretrained(model, local_files_only=local)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"{model} has no processor that loads: {error}", key="model") from error
    return VlmModel(module.eval(), processor, family)


def adapt(module: PreTrainedModel, processor: object) -> VlmModel:
    """A model that is already there behind the adapter of its family."""
    family = adapter_of(module.config.model_type, type(module).__name__)
    return VlmModel(module, processor, family)


def adapter_of(model_type: str, where: str) -> VlmFamily:
    """The family of this name; ConfigError with the known ones for another."""
    if model_type not in ADAPTERS:
        raise ConfigError(
            f"{where} holds a '{model_type}' model; "
            f"adapters exist for {', '.join(sorted(ADAPTERS))}",
            key="model",
        )
    module, _, attribute = ADAPTERS[model_type].partition(":")
    return getattr(import_module(module), attribute)
