"""What a family of vision-language models does in its own way, and what passes in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig

Images = Mapping[str, Tensor]
"""A family's own arguments of its vision tower; images, tiles or patches are the first axis."""


@dataclass(frozen=True)
class Features:
    """What the text model reads in the place of image tokens."""

    tokens: Float[Tensor, "N H"]
    layers: tuple[Float[Tensor, "N H"], ...] = ()
    """Added to the hidden states of the image tokens after the first text layers (DeepStack)."""


@dataclass(frozen=True)
class VlmInputs:
    """One prompt as the network reads it."""

    ids: Int[Tensor, " L"]
    types: Int[Tensor, " L"]
    """0 text, 1 image."""
    images: Images | None
    features: Features | None = None
    """What a vision tower that does not learn made of the images."""


@dataclass(frozen=True)
class Batch:
    """Several prompts side by side, padded on the left."""

    ids: Int[Tensor, "B L"]
    types: Int[Tensor, "B L"]
    mask: Int[Tensor, "B L"]
    """0 on padding."""
    images: Images | None


@dataclass(frozen=True)
class VlmFamily:
    """What the models of one family do in their own way; `network` is a model without its head."""

    text: str
    """Name of the text model in the network."""
    vision: tuple[str, ...]
    """Names of the vision tower and of what carries its output into the text model."""
    rotary_axes: int
    """Position ids of a token: 3 (time, height, width) or 1."""
    images: Callable[[Mapping[str, Tensor]], Images | None]
    """The images in what the processor returned for one prompt."""
    count: Callable[[PreTrainedConfig, Images], int]
    """Image tokens that the vision tower makes of images."""
    features: Callable[[nn.Module, Images], Features]
    positions: Callable[[nn.Module, Batch], Int[Tensor, "axes B L"]]


@dataclass(frozen=True)
class Start:
    """A batch of prompts as the first text layer reads it."""

    embedded: Float[Tensor, "B L H"]
    positions: Int[Tensor, "axes B L"]
    mask: Int[Tensor, "B L"]
    seen: Bool[Tensor, "B L"]
    """Where the image tokens are."""
    layers: tuple[Float[Tensor, "N H"], ...]

    @property
    def next_position(self) -> Int[Tensor, " B"]:
        """Where the answers go on."""
        return self.positions.amax((0, 2)) + 1

    def deepstack(self, later: int = 0) -> dict[str, object]:
        """Arguments of a text model that reads image features in more layers than the first."""
        if not self.layers:
            return {}
        seen = nn.functional.pad(self.seen, (0, later))
        return {"visual_pos_masks": seen, "deepstack_visual_embeds": list(self.layers)}


@dataclass
class Prefix:
    """Keys and values of a batch of prompts, and where their answers go on."""

    cache: DynamicCache
    last_hidden: Float[Tensor, "B H"]
    mask: Int[Tensor, "B L"]
    next_position: Int[Tensor, " B"]

    def repeat(self, group_size: int) -> Prefix:
        """Each prompt `group_size` times over, group-major; the cache is changed in place."""
        self.cache.batch_repeat_interleave(group_size)
        return Prefix(
            self.cache,
            self.last_hidden.repeat_interleave(group_size, dim=0),
            self.mask.repeat_interleave(group_size, dim=0),
            self.next_position.repeat_interleave(group_size, dim=0),
        )


def text_positions(network: nn.Module, batch: Batch) -> Int[Tensor, "1 B L"]:
    """Tokens and image tokens counted alike; padding stands at 0."""
    return (batch.mask.cumsum(-1) - 1).clamp(min=0)[None]
