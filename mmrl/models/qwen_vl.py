"""Qwen2-VL and Qwen2.5-VL; what they share with Qwen3-VL."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedConfig

from mmrl.models.vlm_family import Batch, Features, Images, VlmFamily


def patches(found: Mapping[str, Tensor]) -> Images | None:
    """Flattened patches of all images, and the patches of each in time, height and width."""
    if "pixel_values" not in found:
        return None
    return {key: found[key] for key in ("pixel_values", "image_grid_thw")}


def count(config: PreTrainedConfig, images: Images) -> int:
    """A token for every square of merged patches."""
    return (
        int(images["image_grid_thw"].prod(-1).sum()) // config.vision_config.spatial_merge_size**2
    )


def features(network: nn.Module, images: Images) -> Features:
    """The vision tower's merged patches."""
    found = network.get_image_features(**images, return_dict=True)
    return Features(torch.cat(found.pooler_output))


def rope_index(network: nn.Module, batch: Batch) -> Int[Tensor, "3 B L"]:
    """Time, height and width: equal for text, and an image's grid of N x N takes N of them."""
    positions, _ = network.get_rope_index(
        batch.ids,
        mm_token_type_ids=batch.types,
        image_grid_thw=batch.images and batch.images["image_grid_thw"],
        attention_mask=batch.mask,
    )
    return positions


QWEN_VL = VlmFamily(
    text="language_model",
    vision=("visual",),
    rotary_axes=3,
    images=patches,
    count=count,
    features=features,
    positions=rope_index,
)
