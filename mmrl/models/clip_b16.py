"""The image tower of OpenAI's CLIP ViT-B/16, read from an int8 ONNX file back into transformers.

Each linear layer's weights are rounded to 8 bits a channel there; they are multiplied out, and the
tower runs in float32. Its embeddings are those of CLIP up to that rounding.
"""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmrl.config import ConfigError
from mmrl.models.clip import load_clip
from mmrl.models.frame_cache import FrameCache
from mmrl.models.place import CPU, Place, to_host
from mmrl.models.weights import CLIP_B16_IMAGE

PATCHES = (224 // 16) ** 2
ROWS = 16
"""Frames of one forward pass."""


@cache
def clip_b16_image(keep: Literal["memory", "disk"] = "memory", place: Place = CPU) -> FrameCache:
    """Unit embeddings of frames, (N, 512); one model a process, and each frame embedded once."""
    from transformers import CLIPImageProcessor

    model = place.holds(load_tower(CLIP_B16_IMAGE.path()))
    processor = CLIPImageProcessor()

    @torch.no_grad()
    def embed(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
        return normalize(to_host(model(place.floats(pixels)).image_embeds), dim=-1)

    return FrameCache(embed, CLIP_B16_IMAGE.sha256, rows=ROWS, disk=keep == "disk")


def clip_frames(
    model: str | None, keep: Literal["memory", "disk"], place: Place = CPU
) -> FrameCache:
    """Frames embedded by the CLIP in a folder, or by the packaged ViT-B/16 where that is None.

    Embeddings of a folder's model are kept in memory only.
    """
    return clip_b16_image(keep, place) if model is None else _clip_folder(model, place)


@cache
def _clip_folder(model: str, place: Place) -> FrameCache:
    embed = torch.no_grad()(load_clip(model, place=place).embed_images)
    return FrameCache(embed, model, rows=ROWS)


def load_tower(file: Path) -> nn.Module:
    """`CLIPVisionModelWithProjection` with the file's weights, every key accounted for."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
        projection_dim=512,
        hidden_act="quick_gelu",
    )
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
    weights = dequantized(file)
    positions = "vision_model.embeddings.position_ids"
    weights[positions] = torch.arange(PATCHES + 1)[None]
    extra = set(weights) - set(model.state_dict()) - {positions}
    if extra:
        raise ConfigError(f"{file} holds weights that CLIP has not: {sorted(extra)[:3]}")
    model.load_state_dict(weights, strict=False, assign=True)
    model.vision_model.embeddings.position_ids = weights[positions]
    return model.eval()


def dequantized(file: Path) -> dict[str, Tensor]:
    """The tower's state dict: float32 tensors as they are, int8 ones as (q - zero_point) scale.

    A layer's matrix is stored for x @ W; torch keeps its transpose.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise ConfigError("reading ONNX weights needs `pip install 'mmrl[real]'`") from error

    graph = onnx.load(str(file)).graph
    stored = {one.name: to_array(one) for one in graph.initializer}
    weights = {
        name: torch.from_numpy(value.copy())
        for name, value in stored.items()
        if name.startswith(("vision_model.", "visual_projection.")) and value.dtype == np.float32
    }
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            layer = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
            weights[f"{layer}.weight"] = _multiplied_out(stored, node.input[1])
    return weights


def _multiplied_out(stored: Mapping[str, np.ndarray], name: str) -> Float[Tensor, "out in"]:
    base = name.removesuffix("_quantized")
    levels, zero = stored[name].astype(np.float32), stored[f"{base}_zero_point"].astype(np.float32)
    return torch.from_numpy(((levels - zero) * stored[f"{base}_scale"]).T.copy())
