"""Optical flow: RAFT (Teed & Deng, arXiv:2003.12039), its released weights in torchvision's class.

The two name their layers differently and hold the same tensors; the flow is equal bit for bit.
"""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

import mmrl.torchvision_fix  # noqa: F401
from mmrl.models.place import CPU, Place, to_host
from mmrl.models.weights import RAFT

MULTIPLE, SMALLEST = 8, 128
"""Sides of the frames RAFT reads, in pixels; others are padded by repetition."""
ITERATIONS = 20
RENAMED = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"encoder\.conv1\.", "encoder.convnormrelu.0."),
    (r"encoder\.norm1\.", "encoder.convnormrelu.1."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"((?:feature|context)_encoder)\.conv2\.", r"\1.conv."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""Released name -> torchvision's, one rule after the other."""
DUPLICATE = re.compile(r"layer\d\.\d\.norm3\.")
"""The released file holds a block's last norm twice; the other one is in `downsample`."""
Flow = Callable[[Float[Tensor, "3 H W"], Float[Tensor, "3 H W"]], Float[Tensor, "2 H W"]]


@cache
def raft(place: Place = CPU) -> Flow:
    """Flow in pixels from one frame to the next, frames RGB in [0, 1]; one model a process."""
    from torchvision.models.optical_flow import raft_large

    released = torch.load(RAFT.path(), map_location="cpu", weights_only=True)
    model = raft_large(weights=None)
    model.load_state_dict(renamed(released), strict=True)
    return flow_by(model, place)


def flow_by(model: nn.Module, place: Place) -> Flow:
    """Flow of any `raft_large` at `place`, between frames of any size."""
    model = place.holds(model)

    @torch.no_grad()
    def flow(first: Float[Tensor, "3 H W"], second: Float[Tensor, "3 H W"]) -> Tensor:
        height, width = first.shape[-2:]
        beyond = (0, missing(width), 0, missing(height))
        frames = [place.floats(frame[None] * 2 - 1) for frame in (first, second)]
        pair = [pad(frame, beyond, mode="replicate") for frame in frames]
        return to_host(model(*pair, num_flow_updates=ITERATIONS)[-1][0, :, :height, :width])

    return flow


def missing(side: int) -> int:
    """Pixels that a side lacks to what RAFT reads."""
    return max(SMALLEST, side + -side % MULTIPLE) - side


def renamed(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released state dict under torchvision's names, without duplicates."""
    found = {}
    for name, value in released.items():
        if not DUPLICATE.search(name):
            target = name
            for pattern, replacement in RENAMED:
                target = re.sub(pattern, replacement, target)
            found[target] = value
    return found
