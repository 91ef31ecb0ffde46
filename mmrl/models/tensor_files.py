"""Small tensors kept on disk under the hash of what they were computed from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmrl.config import UserError
from mmrl.data.files import cache_folder


def read_tensors(file: Path) -> dict[str, Tensor] | None:
    """What a file holds, or None where there is no sound one under this very name."""
    try:
        with safe_open(file, framework="pt") as opened:
            if (opened.metadata() or {}).get("key") != file.stem:
                return None
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None


def write_tensors(file: Path, tensors: Mapping[str, Tensor], *, what: str, cure: str) -> None:
    """Put them there at once or not at all; UserError where that is not allowed."""
    plain = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            save_file(plain, Path(scratch) / file.name, metadata={"key": file.stem})
            os.replace(Path(scratch) / file.name, file)
    except OSError as error:
        raise UserError(
            f"cannot keep {what} below {cache_folder()}: {error}; set MMRL_CACHE to another "
            f"folder, or {cure}"
        ) from error
