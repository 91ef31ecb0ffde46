"""One sample of an evaluation with its scores, and one number over many."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

CORRECT = ("accuracy", "multiple_choice")
"""Metrics that say whether an answer is right: a stated confidence is judged against them."""


@dataclass(frozen=True)
class Row:
    """One sample and its scores; None: could not be scored."""

    prompt: str
    group: int
    """Samples of one group are resampled together: those of a prompt, or a file by itself."""
    seed: int | None
    scores: Mapping[str, float | None]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    answer: str | None = None
    media: str | None = None
    sha256: str | None = None
    confidence: float | None = None
    """The model's own probability of being right, in [0, 1]."""
    pictures: str | None = None
    """sha256 over the prompt's pictures in their order; None where it has none."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a score is missing, by its name: "abstained", "error: ...", "timeout: ..."."""

    def score(self, name: str) -> float:
        """One score as a number; NaN: could not be scored."""
        value = self.scores.get(name)
        return math.nan if value is None else float(value)

    @property
    def asked(self) -> tuple[str, str, str]:
        """What makes a prompt the same one: its text, its pictures, its answer."""
        return self.prompt, self.pictures or "", self.answer or ""


@dataclass(frozen=True)
class Metric:
    """Mean of one score over one slice, with its interval over prompts."""

    name: str
    slice: str
    mean: float
    low: float
    """NaN, as `high`: there is no interval, for one prompt has none."""
    high: float
    n: int
    missing: int
    """Samples that could not be scored."""
    note: str = ""
    """Why there is no mean."""


def prompt_set(rows: Sequence[Row]) -> str:
    """sha256 over the different prompts of the rows, whatever their order and count."""
    return hashlib.sha256(json.dumps(sorted({row.asked for row in rows})).encode()).hexdigest()


def pictures_hash(pictures: Sequence[Path]) -> str | None:
    """sha256 over the contents of a prompt's pictures, in their order; None without pictures."""
    if not pictures:
        return None
    digests = "".join(_digest(path, path.stat().st_mtime_ns) for path in pictures)
    return hashlib.sha256(digests.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _digest(path: Path, _modified: int) -> str:
    return file_hash(path)
