"""Weights of scorers on this machine: where each file is looked for, and that it is the right one.

Nothing is downloaded here; `mmrl data fetch NAME` is what does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmrl.config import ConfigError
from mmrl.data.files import cache_folder


class WeightsUnavailable(ConfigError):
    """Weights that are not on this machine: which, where they were looked for, how to get them."""


@dataclass(frozen=True)
class Weights:
    """One pinned file of weights. Its bytes are the same wherever it is found."""

    package: str
    """A name that `mmrl data fetch` knows."""
    file: str
    sha256: str
    hub: str | None = None
    """A hub repository that holds the same file, looked for in the hub's cache alone."""

    def path(self) -> Path:
        """The file in `$MMRL_WEIGHTS/PACKAGE`, the hub's cache, or the unpacked package.

        A file with another hash is passed over. WeightsUnavailable where none is left.
        """
        refused = []
        for place in self._places():
            if place.is_file():
                if _digest(place, place.stat().st_mtime_ns) == self.sha256:
                    return place
                refused.append(f"; {place} has another sha256")
        raise WeightsUnavailable(
            f"{self.file} is not on this machine{''.join(refused)}; run "
            f"`mmrl data fetch {self.package}`, or put it into $MMRL_WEIGHTS/{self.package}"
        )

    def origin(self) -> dict[str, str]:
        """What a report says of these weights."""
        return {"weights": f"{self.package}/{self.file}", "weights_sha256": self.sha256}

    def _places(self) -> Iterator[Path]:
        if folder := os.environ.get("MMRL_WEIGHTS"):
            yield Path(folder) / self.package / self.file
        if self.hub is not None:
            from huggingface_hub import try_to_load_from_cache

            found = try_to_load_from_cache(self.hub, self.file)
            if isinstance(found, str):
                yield Path(found)
        yield cache_folder() / self.package / self.file


@cache
def _digest(path: Path, _modified: int) -> str:
    """sha256 of the file, computed once a process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CLIP_B16_IMAGE = Weights(
    "clip_b16_image",
    "clip_encoder.int8.onnx",
    "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
)
MINILM = Weights(
    "minilm",
    "model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    hub="sentence-transformers/all-MiniLM-L6-v2",
)
MOBILENET_V2 = Weights(
    "mobilenet_v2",
    "mobilenet_v2-b0353104.pth",
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
)
DINOV2_S14 = Weights(
    "dinov2_s14",
    "dinov2_vits14_patch_8x8.onnx",
    "0cd026c8f1f265d5203c4125ee1226825678758512784065a16958c0e205c61f",
)
RAFT = Weights(
    "vbench_motion",
    "raft/raft-things.pth",
    "fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
)
AMT_S = Weights(
    "vbench_motion",
    "amt/amt-s.pth",
    "07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
)
NUDENET = Weights(
    "nudenet",
    "320n.onnx",
    "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
)
