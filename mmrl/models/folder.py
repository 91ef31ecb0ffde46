"""Where a model comes from: a folder, or a hub id, told apart before anything is downloaded."""

from __future__ import annotations

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
