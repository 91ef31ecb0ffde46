"""Where a model comes from: a folder or a hub id, told apart before any download; its hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mmrl.config import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def check_model_folder(path: str, file: str) -> None:
    """ConfigError unless `path` is a folder that holds `file`, or has the form of a hub id.

    `owner/name` is looked up on the hub by the library itself; a path with another form, or whose
    first part is a folder here, is meant as a folder and never downloaded.
    """
    folder = Path(path)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise ConfigError(f"{path} holds no {file}: not a model folder", key="model")
        return
    local = Path(path.split("/", maxsplit=1)[0]).is_dir() or path.startswith((".", "/", "~"))
    if local or not HUB_ID.fullmatch(path):
        raise ConfigError(f"no folder {path}", key="model")


def check_file(path: Path | None, key: str) -> None:
    """ConfigError unless something lies at `path`; None is fine."""
    if path is not None and not path.exists():
        raise ConfigError(f"{path}: no such file", key=key)


def folder_hash(path: str) -> str:
    """sha256 over the names and bytes of a folder's weight files; empty where it is no folder."""
    folder = Path(path)
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".bin", ".pt"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest() if files else ""
