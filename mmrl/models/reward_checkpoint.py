"""Training checkpoints of Qwen2-VL judges: names of their time, adapters, and the reward head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmrl.config import ConfigError

PREFIX = "base_model.model."
OLD_LAYOUT = (("visual.", "model.visual."), ("model.", "model.language_model."))
"""Where the library of 2024 had its towers, and where it has them now."""
MODERN = ("model.language_model.", "model.visual.", "lm_head.", "rm_head.")
FILES = ("model.pth", "model.safetensors", "non_lora_state_dict.pth", "adapter_model.safetensors")
WRAPPERS = (".base_layer", ".modules_to_save.default", ".default")
"""What PEFT puts into names."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights under today's names, adapters apart, and the factor alpha / rank of these."""

    weights: Mapping[str, Tensor]
    scale: float | None = None

    @classmethod
    def read(cls, folder: Path, scale: float | None = None) -> Checkpoint:
        """A full model.pth (or .safetensors), or adapters with non_lora_state_dict.pth."""
        found: dict[str, Tensor] = {}
        for file in (folder / name for name in FILES):
            if file.is_file():
                found |= read_weights(file)
        if not found:
            raise ConfigError(f"{folder} holds none of {', '.join(FILES)}", key="checkpoint")
        return cls({modern(name): value for name, value in found.items()}, scale)

    def head(self) -> dict[str, Tensor]:
        """Weights of the reward head by their names inside it."""
        found = {
            name.removeprefix("rm_head."): value
            for name, value in self.weights.items()
            if name.startswith("rm_head.")
        }
        if not found:
            raise ConfigError("holds no rm_head: not a reward checkpoint", key="checkpoint")
        return found

    def merged(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights but the head's, W + alpha / rank B A where a layer has adapters.

        A layer that the checkpoint does not hold itself is taken from `base`.
        """
        plain = {
            name: value
            for name, value in self.weights.items()
            if ".lora_" not in name and not name.startswith("rm_head.")
        }
        for name in [name for name in self.weights if ".lora_A" in name]:
            layer, _, rest = name.partition(".lora_A")
            target = f"{layer}.weight"
            if self.scale is None:
                raise ConfigError("has adapters but no lora_r and lora_alpha", key="checkpoint")
            old = plain.get(target, base.get(target))
            if old is None:
                raise ConfigError(f"adapts '{layer}', which is not there", key="checkpoint")
            up = self.weights[f"{layer}.lora_B{rest}"].float()
            delta = self.scale * up @ self.weights[name].float()
            plain[target] = (old.float() + delta).to(old.dtype)
        return plain


def modern(name: str) -> str:
    """A weight's name without PEFT's wrappers and in today's layout."""
    name = name.removeprefix(PREFIX)
    for part in WRAPPERS:
        name = name.replace(part, "")
    if name.startswith(MODERN):
        return name
    for old, new in OLD_LAYOUT:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or a .pth file, on the CPU; no other object is unpickled."""
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def newest_step(root: Path, step: int) -> Path:
    """`checkpoint-<step>` under `root`; -1: the highest one."""
    found = {int(p.name.split("-")[1]): p for p in root.glob("checkpoint-*") if p.is_dir()}
    chosen = max(found, default=None) if step == -1 else step
    if chosen is None or chosen not in found:
        name = "*" if step == -1 else step
        raise ConfigError(f"{root} holds no checkpoint-{name}", key="checkpoint")
    return found[chosen]


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; ConfigError where there is none."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", key="checkpoint")
    return json.loads(path.read_text("utf-8"))
