"""InternVL, as transformers has it (models whose names end in -hf)."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedConfig

from mmrl.models.vlm_family import Features, Images, VlmFamily, text_positions


def tiles(found: Mapping[str, Tensor]) -> Images | None:
    """Tiles of all images, each image's own small whole the last of them."""
    return {"pixel_values": found["pixel_values"]} if "pixel_values" in found else None


def count(config: PreTrainedConfig, images: Images) -> int:
    """(H / patch) (W / patch) downsample_ratio^2 tokens a tile."""
    number, _, height, width = images["pixel_values"].shape
    high, wide = config.vision_config.patch_size
    return int(number * (height // high) * (width // wide) * config.downsample_ratio**2)


def features(network: nn.Module, images: Images) -> Features:
    """The vision tower's patches after pixel shuffle and projector."""
    found = network.get_image_features(**images, return_dict=True).pooler_output
    return Features(found.flatten(0, 1))


INTERNVL = VlmFamily(
    text="language_model",
    vision=("vision_tower", "multi_modal_projector"),
    rotary_axes=1,
    images=tiles,
    count=count,
    features=features,
    positions=text_positions,
)
