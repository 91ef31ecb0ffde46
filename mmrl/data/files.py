"""Where data lies, its mistakes in one line, and pictures stored under the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from mmrl.config import UserError

CACHE_PREFIX = "cache:"
SERVED = "MMRL_SERVED"
"""The variable that tells a worker of `mmrl serve`: its samples come from others."""


class DataError(UserError):
    """A prompt file or a picture that cannot be used: the file, the line, what is wrong."""


def cache_folder() -> Path:
    """Where fetched data lies: `$MMRL_CACHE`, or `~/.cache/mmrl`."""
    return Path(os.environ.get("MMRL_CACHE", Path.home() / ".cache" / "mmrl"))


def resolve(path: str) -> Path:
    """A data path of a config: `cache:name/file` is a file of `mmrl data fetch name`."""
    if not path.startswith(CACHE_PREFIX):
        return Path(path)
    relative = path.removeprefix(CACHE_PREFIX)
    found = cache_folder() / relative
    if not found.exists():
        name = relative.split("/")[0]
        raise DataError(f"{path}: not on this machine; run `mmrl data fetch {name}` first")
    return found


def named_path(path: str) -> Path:
    """The file that a sample names, as `resolve`; DataError where samples come over the network.

    A client of a reward service must not choose which files of its machine are opened.
    """
    if os.environ.get(SERVED):
        raise DataError(f"{path!r:.80}: a served reward opens no file that a sample names")
    return resolve(path)


def json_text(tree: Any, indent: int | None = None, *, sort_keys: bool = False) -> str:
    """The tree as JSON that every parser reads: null stands for a number that is not finite."""
    return json.dumps(_finite(tree), indent=indent, sort_keys=sort_keys, allow_nan=False)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def store_picture(content: bytes, folder: Path, where: str) -> Path:
    """The bytes as a file of `folder`, named by their sha256: the same picture is stored once."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = (image.format or "").lower()
            image.verify()
    except Exception as error:
        raise DataError(f"{where}: the picture cannot be read: {error}") from error
    target = folder / f"{hashlib.sha256(content).hexdigest()}.{kind}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as sink:
            sink.write(content)
        os.replace(sink.name, target)
    return target


def check_image(path: Path, where: str) -> None:
    """DataError unless the file is a picture whose header and checksums are sound."""
    try:
        with Image.open(path) as image:
            image.verify()
    except FileNotFoundError as error:
        raise DataError(f"{where}: image {path} does not exist") from error
    except Exception as error:
        raise DataError(f"{where}: image {path} cannot be read: {error}") from error
