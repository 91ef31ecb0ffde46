"""Low-rank adapters inside a model, and what of a model learns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from mmrl.config import Config, ConfigError


class LoraConfig(Config):
    """Low-rank adapters (arXiv:2106.09685) on the linear layers whose name matches."""

    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64, gt=0)
    targets: tuple[str, ...] = Field(min_length=1)
    """Ends of layer names, as PEFT reads them."""


def add_lora(
    module: nn.Module, config: LoraConfig, *, seed: int, without: Sequence[str] = ()
) -> None:
    """Freeze `module` and add trainable adapters to the linear layers that `config.targets` name.

    The parts of the module that `without` names stay as they are.
    The adapters start as the identity (B = 0). Works on diffusers and transformers models, whose
    own `save_lora_adapter` / `save_pretrained` then write the adapter. ConfigError where a target
    matches no layer.
    """
    from peft import LoraConfig as PeftLoraConfig

    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not any(name.startswith(f"{w}.") for w in without)
    ]
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            known = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise ConfigError(
                f"'{target}' matches no linear layer of {type(module).__name__} "
                f"(layer names end in: {', '.join(known)})",
                key="lora.targets",
            )
    module.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module.add_adapter(  # pyright: ignore[reportCallIssue]
            PeftLoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]  # any number will do
                target_modules=list(config.targets),
                exclude_modules="|".join(rf"{re.escape(w)}\..*" for w in without) or None,
            )
        )


def has_lora(module: nn.Module) -> bool:
    """Whether adapters are in the module."""
    return any("lora_" in name for name, _ in module.named_parameters())
