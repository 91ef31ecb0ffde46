"""Frames embedded once: in memory for the scorers of one process, on disk for the next."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmrl.data.files import cache_folder
from mmrl.data.video import to_uint8, uniform_indices
from mmrl.models.tensor_files import read_tensors, write_tensors

MEMORY_FRAMES = 65_536
"""Embeddings kept, the last used ones: 128 MiB at 512 numbers each."""


@dataclass
class FrameCache:
    """Embeddings by the bytes of the frame; `identity` is the hash of the model's weights."""

    embed: Callable[[UInt8[Tensor, "N 3 H W"]], Float[Tensor, "N D"]]
    identity: str
    rows: int
    """Frames of one forward pass; frames of one pass have one size."""
    disk: bool = False
    _kept: OrderedDict[str, Float[Tensor, " D"]] = field(default_factory=OrderedDict, repr=False)

    def video(self, video: Float[Tensor, "F 3 H W"], num_frames: int) -> Float[Tensor, "frames D"]:
        """Embeddings of `num_frames` frames, the centres of equal segments."""
        return self(to_uint8(video[uniform_indices(len(video), num_frames)]))

    @torch.no_grad()
    def __call__(self, frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """One row a frame, on the CPU."""
        keys = [self._key(frame) for frame in frames]
        missing = {
            key: frame for key, frame in zip(keys, frames, strict=True) if not self._has(key)
        }
        new = list(missing)
        for start in range(0, len(new), self.rows):
            part = new[start : start + self.rows]
            found = self.embed(torch.stack([missing[key] for key in part])).cpu()
            self._keep(part, found)
        rows = torch.stack([self._kept[key] for key in keys])
        while len(self._kept) > MEMORY_FRAMES:
            self._kept.popitem(last=False)
        return rows

    def _key(self, frame: UInt8[Tensor, "3 H W"]) -> str:
        told = f"{self.identity} {tuple(frame.shape)}".encode()
        return hashlib.sha256(told + frame.contiguous().numpy().tobytes()).hexdigest()

    def _has(self, key: str) -> bool:
        if key in self._kept:
            self._kept.move_to_end(key)
            return True
        found = read_tensors(self._file(key)) if self.disk else None
        if found is not None:
            self._kept[key] = found["embedding"]
        return found is not None

    def _keep(self, keys: Sequence[str], rows: Float[Tensor, "N D"]) -> None:
        for key, row in zip(keys, rows, strict=True):
            self._kept[key] = row.clone()
            if self.disk:
                write_tensors(
                    self._file(key),
                    {"embedding": row},
                    what="frame embeddings",
                    cure="cache: memory",
                )

    def _file(self, key: str) -> Path:
        return cache_folder() / "frames" / key[:2] / f"{key}.safetensors"
