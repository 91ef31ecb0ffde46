"""Prompt files, and a seeded shuffle that can stop and continue anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmrl.config import UserError
from mmrl.types import Prompt

CACHE_PREFIX = "cache:"
FIELDS = ("text", "images", "videos", "answer", "metadata")


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


def load_prompts(path: str) -> list[Prompt]:
    """Prompts of a JSONL file, one object a line: text, images, videos, answer, metadata.

    Image and video paths are relative to the file. DataError names the first broken line.
    """
    file = resolve(path)
    if not file.is_file():
        raise DataError(f"{file}: no such prompt file")
    prompts, sound = [], set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            prompts.append(_read_prompt(file, number, line, sound))
    if not prompts:
        raise DataError(f"{file}: holds no prompts")
    return prompts


def _read_prompt(file: Path, number: int, line: str, sound: set[Path]) -> Prompt:
    """`sound` gathers the pictures already looked at: many questions share one."""
    where = f"{file}:{number}"
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object, got {type(entry).__name__}")
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise DataError(f"{where}: unknown field '{unknown[0]}' (known: {', '.join(FIELDS)})")
    text = entry.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: 'text' must be a non-empty string, got {text!r}")
    answer = entry.get("answer")
    images = tuple(file.parent / name for name in entry.get("images", ()))
    for image in images:
        if image not in sound:
            check_image(image, where)
            sound.add(image)
    videos = tuple(file.parent / name for name in entry.get("videos", ()))
    for video in videos:
        if not video.is_file():
            raise DataError(f"{where}: video {video} does not exist")
    return Prompt(
        text=text,
        images=images,
        videos=videos,
        answer=None if answer is None else str(answer),
        metadata=entry.get("metadata", {}),
    )


def check_image(path: Path, where: str) -> None:
    """DataError unless the file is a picture whose header and checksums are sound."""
    try:
        with Image.open(path) as image:
            image.verify()
    except FileNotFoundError as error:
        raise DataError(f"{where}: image {path} does not exist") from error
    except Exception as error:
        raise DataError(f"{where}: image {path} cannot be read: {error}") from error


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
