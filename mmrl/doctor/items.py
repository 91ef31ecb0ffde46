"""The lines of the memory table, and what every kind of run has of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jaxtyping import Shaped
from torch import Tensor, nn

from mmrl.recipe import PipelineConfig
from mmrl.trust_region.weights import is_adapter, trainable

Place = Literal["rollout", "decode", "reward", "update", "host"]
"""Four phases on the device, and host memory."""
PLACES: tuple[Place, ...] = get_args(Place)
PHASES: tuple[Place, ...] = PLACES[:-1]
FLOAT32 = 4
"""Bytes."""


@dataclass(frozen=True)
class Item:
    """One line of the table."""

    name: str
    bytes: Mapping[Place, int]


@dataclass(frozen=True)
class Estimate:
    """Peak memory of a run."""

    items: tuple[Item, ...]
    parameters: Mapping[str, int]
    """Counts by part; `trained` are those that learn."""
    assumed: str = ""
    """What the config does not say and the estimate took."""

    def total(self, place: Place) -> int:
        """Bytes of all items at one place."""
        return sum(item.bytes.get(place, 0) for item in self.items)


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks."""

    layers: int
    width: int
    hidden: int
    """Width between the two layers of a block's MLP."""
    gated: bool = False
    """Whether the MLP is of the SwiGLU kind, as in language models."""

    def saved(self, *, adapter: bool) -> int:
        """Elements that one block keeps per token for its backward pass.

        Full: 20 d + 2 f (gated 15 d + 5 f); with frozen weights and LoRA on the attention, where
        frozen layers keep no input: 13 d + f (gated 8 d + 3 f).
        """
        per_width, per_hidden = {
            (False, False): (20, 2),
            (False, True): (13, 1),
            (True, False): (15, 5),
            (True, True): (8, 3),
        }[self.gated, adapter]
        return per_width * self.width + per_hidden * self.hidden

    @property
    def passing(self) -> int:
        """Elements alive per token inside one block whether or not it keeps any: 4 d + 2 f."""
        return 4 * self.width + (3 if self.gated else 2) * self.hidden


def activation_elements(blocks: Blocks, *, adapter: bool, checkpointing: bool) -> int:
    """Per token at the peak of one forward and backward pass: L saved + passing.

    With gradient checkpointing every block keeps its input alone, and one is made again:
    L d + saved + passing.
    """
    if checkpointing:
        return blocks.layers * blocks.width + remade_elements(blocks, adapter=adapter)
    return blocks.layers * blocks.saved(adapter=adapter) + blocks.passing


def remade_elements(blocks: Blocks, *, adapter: bool) -> int:
    """Per token, of the one block that is made again at a time: saved + passing."""
    return blocks.saved(adapter=adapter) + blocks.passing


def count(modules: Iterable[nn.Module]) -> int:
    """Parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


def size(tensors: Iterable[Shaped[Tensor, ...]]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def everywhere(name: str, found: int) -> Item:
    """An item that stays on the device in every phase."""
    return Item(name, dict.fromkeys(PHASES, found))


def training_items(module: nn.Module, config: PipelineConfig) -> list[Item]:
    """Gradients, masters, AdamW's two moments, and the anchors: adapters on the device, others in
    host memory.

    A weight below float32 has a float32 master, and its gradient lies there. A whole anchor visits
    the device beside the live weights while it is evaluated.
    """
    weights = trainable(module).values()
    learning, exact = size(weights), sum(map(exact_bytes, weights))
    anchors = sum(exact if kind == "ema" else learning for kind in config.trust_region.anchors())
    items = [
        Item("gradients", {"update": exact}),
        everywhere("AdamW moments", 2 * exact),
    ]
    if exact > learning:
        items.append(everywhere("float32 masters", sum(map(master_bytes, weights))))
    if is_adapter(module):
        return [*items, everywhere("anchors", anchors)]
    visit = learning if anchors else 0
    return [*items, Item("anchors", {"update": visit, "host": anchors})]


def exact_bytes(weight: Shaped[Tensor, ...]) -> int:
    """Bytes in float32, or in the weight's own dtype where that is more."""
    return weight.numel() * max(FLOAT32, weight.element_size())


def master_bytes(weight: Shaped[Tensor, ...]) -> int:
    """Bytes of the weight's master; 0 where it needs none."""
    return weight.numel() * FLOAT32 if weight.element_size() < FLOAT32 else 0


def reward_items(config: PipelineConfig) -> list[Item]:
    """Weight files of the rewards' model folders; they are scored in host memory."""
    folders = {entry["model"] for entry in config.rewards.describe().values() if "model" in entry}
    found = sum(file.stat().st_size for folder in folders for file in _weight_files(folder))
    return [Item("reward models", {"host": found})] if folders else []


def _weight_files(folder: str) -> list[Path]:
    return [*Path(folder).glob("*.safetensors")]
