"""SmolVLM, SmolVLM2 and Idefics3: an image is one tile, or a grid of tiles and a small whole."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from mmrl.models.vlm_family import Features, Images, VlmFamily, text_positions


def tiles(found: Mapping[str, Tensor]) -> Images | None:
    """Tiles of all images, and which of their pixels are no padding."""
    if "pixel_values" not in found:
        return None
    return {key: found[key][0] for key in ("pixel_values", "pixel_attention_mask")}


def count(config: PreTrainedConfig, images: Images) -> int:
    """(H / patch) (W / patch) / scale_factor^2 tokens a tile."""
    number, _, height, width = images["pixel_values"].shape
    patch = config.vision_config.patch_size
    return number * (height // patch) * (width // patch) // config.scale_factor**2


def features(network: nn.Module, images: Images) -> Features:
    """The vision tower's patches after pixel shuffle and connector."""
    batch = {key: values[None] for key, values in images.items()}
    return Features(torch.cat(network.get_image_features(**batch, return_dict=True).pooler_output))


SMOLVLM = VlmFamily(
    text="text_model",
    vision=("vision_model", "connector"),
    rotary_axes=1,
    images=tiles,
    count=count,
    features=features,
    positions=text_positions,
)
