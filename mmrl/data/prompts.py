"""Prompt files, and a seeded shuffle that can stop and continue anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmrl.data.files import DataError, cache_folder, check_image, resolve, store_picture
from mmrl.data.rows import fields, raw_rows
from mmrl.types import Prompt

__all__ = [
    "DataError",
    "PromptStream",
    "cache_folder",
    "check_image",
    "load_prompts",
    "read_prompt",
    "resolve",
]

FIELDS = ("text", "images", "videos", "answer", "metadata")


def load_prompts(paths: str | Sequence[str]) -> list[Prompt]:
    """Prompts of one file or several (a list, or names between commas), one after the other.

    JSONL, JSON or parquet with the fields text, images, videos, answer and metadata. Image and
    video paths are relative to their file; pictures that a parquet file holds as bytes are
    written to the cache. DataError names the first broken row.
    """
    names = paths.split(",") if isinstance(paths, str) else paths
    return [prompt for name in names for prompt in _load_file(resolve(name.strip()))]


def _load_file(file: Path) -> list[Prompt]:
    if not file.is_file():
        raise DataError(f"{file}: no such prompt file")
    prompts, sound = [], set()
    for where, raw in raw_rows(file):
        prompt = read_prompt(fields(where, raw), file.parent, where)
        for image in prompt.images:
            if image not in sound:  # many questions share a picture
                check_image(image, where)
                sound.add(image)
        prompts.append(prompt)
    if not prompts:
        raise DataError(f"{file}: holds no prompts")
    return prompts


def read_prompt(entry: Mapping[str, Any], folder: Path, where: str) -> Prompt:
    """The fields of one row as a prompt; whether its pictures can be read is left to the caller."""
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise DataError(
            f"{where}: unknown field '{unknown[0]}' (known: {', '.join(FIELDS)}); "
            "`mmrl data convert` reads other formats"
        )
    text = entry.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: 'text' must be a non-empty string, got {text!r}")
    answer = entry.get("answer")
    if isinstance(answer, list | dict):
        raise DataError(f"{where}: 'answer' must be a text or a number, got {answer!r}")
    videos = tuple(folder / str(name) for name in _listed(entry, "videos", where))
    for video in videos:
        if not video.is_file():
            raise DataError(f"{where}: video {video} does not exist")
    return Prompt(
        text=text,
        images=tuple(_picture(item, folder, where) for item in _listed(entry, "images", where)),
        videos=videos,
        answer=None if answer is None else str(answer),
        metadata=_metadata(entry, where),
    )


def _listed(entry: Mapping[str, Any], name: str, where: str) -> list[Any]:
    found = entry.get(name)
    if found is not None and not isinstance(found, list):
        raise DataError(f"{where}: '{name}' must be a list, got {found!r:.80}")
    return found or []


def _metadata(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Columns that a parquet row lacks come as null and are left out."""
    found = entry.get("metadata")
    if found is not None and not isinstance(found, dict):
        raise DataError(f"{where}: 'metadata' must be an object, got {found!r:.80}")
    return {key: value for key, value in (found or {}).items() if value is not None}


def _picture(item: object, folder: Path, where: str) -> Path:
    """A path beside the file, or bytes (bare, or as Hugging Face's {bytes, path}) in the cache."""
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes):
        return store_picture(item, cache_folder() / "images", where)
    if not isinstance(item, str) or not item:
        raise DataError(f"{where}: an image must be a path or bytes, got {item!r:.80}")
    return folder / item


@dataclass
class PromptStream:
    """An endless seeded shuffle; `epoch` and `position` are its whole state."""

    prompts: Sequence[Prompt]
    seed: int
    epoch: int = 0
    position: int = 0

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts; each epoch is a fresh permutation drawn from (seed, epoch)."""
        taken: list[Prompt] = []
        while len(taken) < count:
            if self.position == len(self.prompts):
                self.epoch, self.position = self.epoch + 1, 0
            order = self._order()
            part = order[self.position : self.position + count - len(taken)]
            taken += [self.prompts[index] for index in part]
            self.position += len(part)
        return taken

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.prompts), generator=generator).tolist()
