"""Few target vectors out of a helper picture: a frozen encoder's patches, queried (HyLaR, 3.1)."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from mmrl.config import ConfigError
from mmrl.data.images import load_image
from mmrl.models.folder import check_model_folder
from mmrl.models.vlm import VlmModel

QUERY_STD = 0.02


@runtime_checkable
class PatchEncoder(Protocol):
    """A picture encoder that does not learn."""

    width: int

    def __call__(self, pictures: Sequence[Path]) -> Float[Tensor, "N P W"]:
        """Patch features, without gradients; all pictures give the same number of them."""
        ...


@dataclass
class VisionPatches:
    """Patches of an image tower of transformers, such as SigLIP2 (so400m: 729 of width 1152)."""

    module: nn.Module
    processor: object
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.module.eval().requires_grad_(False)
        self.width = self.module.config.hidden_size

    @classmethod
    def from_pretrained(cls, path: str, *, dtype: torch.dtype = torch.float32) -> VisionPatches:
        """The vision half of a folder or hub id; ConfigError where it has none."""
        check_model_folder(path, "config.json")
        whole = AutoModel.from_pretrained(path, dtype=dtype)
        module = getattr(whole, "vision_model", whole)
        if not hasattr(module.config, "patch_size"):
            raise ConfigError(f"{path} has no vision tower", key="encoder")
        return cls(module, AutoImageProcessor.from_pretrained(path))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Path]) -> Float[Tensor, "N P W"]:
        images = [load_image(path) for path in pictures]
        found = self.processor(images=images, return_tensors="pt")
        weight = next(self.module.parameters())
        return self.module(found["pixel_values"].to(weight)).last_hidden_state


@dataclass
class TowerPatches:
    """Merged patches of a copy of the VLM's own vision tower: what it saw before it learns on."""

    model: VlmModel
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.model = deepcopy(self.model)
        self.model.module.eval().requires_grad_(False)
        self.width = self.model.module.get_input_embeddings().weight.shape[1]

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Path]) -> Float[Tensor, "N P W"]:
        images = [load_image(path) for path in pictures]
        found = self.model.processor.image_processor(images=images, return_tensors="pt")
        given = self.model.family.images(found)
        assert given is not None
        on_device = {name: value.to(self.model.device) for name, value in given.items()}
        tokens = self.model.family.features(self.model.module.model, on_device).tokens
        return tokens.view(len(pictures), -1, self.width)


class Compressor(nn.Module):
    """Learned queries read the patches in pre-norm blocks; one target vector a query."""

    def __init__(
        self, width: int, out_width: int, *, queries: int = 16, blocks: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}", key="heads")
        self.queries = nn.Parameter(QUERY_STD * torch.randn(queries, width))
        self.blocks = nn.ModuleList(CompressorBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_width)

    def forward(self, patches: Float[Tensor, "N P W"]) -> Float[Tensor, "N Q D"]:
        """Target vectors in the space of the VLM's input embeddings."""
        x = self.queries.expand(len(patches), -1, -1)
        for block in self.blocks:
            x = block(x, patches)
        return self.out(self.norm(x))


class CompressorBlock(nn.Module):
    """Self-attention of the queries, cross-attention to the patches, an MLP four times as wide.

    The patches enter as they are; only the queries are normed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_own, self.norm_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.own = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "N Q W"], patches: Float[Tensor, "N P W"]
    ) -> Float[Tensor, "N Q W"]:
        """The queries after one block."""
        h = self.norm_own(x)
        x = x + self.own(h, h, h, need_weights=False)[0]
        x = x + self.cross(self.norm_cross(x), patches, patches, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x))
