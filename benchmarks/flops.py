"""Floating-point operations of a Wan transformer, counted from its shapes.

One multiplication with its addition counts 2. Forward, a sample of T tokens with S text tokens:

    linear layers   2 T (6 d^2 + 2 d f) + 4 S d^2 a layer: four projections of T tokens in
                    self-attention, two of T and two of S in cross-attention, an MLP of width f;
                    with LoRA of rank r 4 d r more for every token of a projection; and once the
                    patches, the text, the timestep and the output
    attention       4 T^2 d + 4 T S d a layer

Backward, where LoRA on the eight projections is all that learns: a frozen layer costs its forward
once more (gradient of its input; 0 where nothing before it learns), an adapter and attention twice.
Softmax, norms and activations are left out. What gradient checkpointing runs again is counted
apart: model FLOPs are without it, hardware FLOPs with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Flops:
    """Operations by kind."""

    linear: float
    attention: float

    @property
    def total(self) -> float:
        """Of both kinds."""
        return self.linear + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.attention + other.attention)

    def __mul__(self, times: float) -> Flops:
        return Flops(times * self.linear, times * self.attention)


@dataclass(frozen=True)
class WanShape:
    """All that the counts depend on."""

    layers: int
    width: int
    hidden: int
    """Between the two layers of an MLP."""
    tokens: int
    texts: int
    """Text tokens, padded."""
    text_width: int
    frequencies: int
    """Width of a timestep's sinusoids."""
    patch_in: int
    """Elements of one patch of latents."""
    patch_out: int
    rank: int = 0
    """Of the LoRA on every projection of both attentions; 0: none."""

    @classmethod
    def of(cls, network: Mapping, *, tokens: int, texts: int, rank: int) -> WanShape:
        """From the config of a WanTransformer3DModel."""
        patch = prod(network["patch_size"])
        return cls(
            layers=network["num_layers"],
            width=network["num_attention_heads"] * network["attention_head_dim"],
            hidden=network["ffn_dim"],
            tokens=tokens,
            texts=texts,
            text_width=network["text_dim"],
            frequencies=network["freq_dim"],
            patch_in=network["in_channels"] * patch,
            patch_out=network["out_channels"] * patch,
            rank=rank,
        )


def forward_flops(shape: WanShape) -> Flops:
    """One sample, one forward pass."""
    d = shape.width
    text = 2 * shape.texts * (shape.text_width * d + d**2)
    time = 2 * (shape.frequencies * d + d**2 + 6 * d**2)
    ends = 2 * shape.tokens * d * (shape.patch_in + shape.patch_out)
    return Flops(text + time + ends, 0) + block_flops(shape) * shape.layers


def block_flops(shape: WanShape) -> Flops:
    """One sample, one layer, forward: what checkpointing runs again a layer."""
    d, tokens, texts = shape.width, shape.tokens, shape.texts
    frozen = 2 * tokens * (6 * d**2 + 2 * d * shape.hidden) + 4 * texts * d**2
    return Flops(frozen + adapter_flops(shape), 4 * tokens * (tokens + texts) * d)


def adapter_flops(shape: WanShape) -> float:
    """LoRA of one layer, forward: down and up for every token of its eight projections."""
    return 4 * shape.width * shape.rank * (6 * shape.tokens + 2 * shape.texts)


def backward_flops(shape: WanShape) -> Flops:
    """One sample, one backward pass, without what checkpointing runs again.

    Text needs no gradient, so its two projections have none to pass on, nor have the three that
    read the first layer's input.
    """
    d, tokens, texts = shape.width, shape.tokens, shape.texts
    frozen = 2 * tokens * (6 * d**2 + 2 * d * shape.hidden)
    adapters = 2 * adapter_flops(shape) - 2 * d * shape.rank * 2 * texts
    unasked = 2 * tokens * 3 * (d**2 + d * shape.rank)
    layers = shape.layers * (frozen + adapters) - unasked
    output = 2 * tokens * d * shape.patch_out
    attention = 2 * block_flops(shape).attention * shape.layers
    return Flops(layers + output, attention)


def remade_flops(shape: WanShape) -> Flops:
    """One sample: the layers once more, in the backward pass of gradient checkpointing."""
    return block_flops(shape) * shape.layers
