"""Which adapter reads a vision-language model, by the `model_type` of its config."""

from __future__ import annotations

from importlib import import_module

import torch
from transformers import AutoConfig

from mmrl.config import ConfigError
from mmrl.models.folder import check_model_folder
from mmrl.models.qwen_vl import QwenVlModel as VlmModel

ADAPTERS = {
    "qwen2_5_vl": "mmrl.models.qwen_vl:QwenVlModel",
    "qwen2_vl": "mmrl.models.qwen_vl:QwenVlModel",
}
"""Adapter of every `model_type` that config.json may name."""


def load_vlm(model: str, *, dtype: torch.dtype) -> VlmModel:
    """The model in a folder (or hub id) behind the adapter of its family.

    ConfigError for a missing folder, and for a family without an adapter.
    """
    check_model_folder(model, "config.json")
    family = AutoConfig.from_pretrained(model).model_type
    if family not in ADAPTERS:
        raise ConfigError(
            f"{model} holds a '{family}' model; adapters exist for {', '.join(sorted(ADAPTERS))}",
            key="model",
        )
    module, _, attribute = ADAPTERS[family].partition(":")
    return getattr(import_module(module), attribute).from_pretrained(model, dtype=dtype)
