"""Qwen3-VL: Qwen2.5-VL's rope index, and image features for more text layers than the first."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from mmrl.models.qwen_vl import QWEN_VL
from mmrl.models.vlm_family import Features, Images


def features(network: nn.Module, images: Images) -> Features:
    """Merged patches, and those of the vision layers in `deepstack_visual_indexes`."""
    found = network.get_image_features(**images, return_dict=True)
    layers = tuple(torch.cat(layer) for layer in found.deepstack_features)
    return Features(torch.cat(found.pooler_output), layers)


QWEN3_VL = replace(QWEN_VL, features=features)
