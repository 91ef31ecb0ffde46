"""What is wrong with prompt files: what cannot be read, stands twice, or leaks between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from mmrl.data.duplicates import Print, near_pairs, picture_print, scenes, stack
from mmrl.data.files import DataError, resolve
from mmrl.data.images import read_image
from mmrl.data.options import is_option, options
from mmrl.data.prompts import read_prompt
from mmrl.data.rows import fields, raw_rows
from mmrl.data.statistics import Statistics
from mmrl.data.video import read_video
from mmrl.types import Prompt

EXAMPLES = 5
"""Places that a finding names; the others are counted."""


@dataclass
class Finding:
    """How often a thing was found, and where at first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


class Findings(dict[str, Finding]):
    """Findings by kind, in the order they came up."""

    def add(self, kind: str, example: str) -> None:
        """One more of this kind."""
        self.setdefault(kind, Finding()).add(example)


@dataclass(frozen=True)
class Picture:
    """What is kept of a picture: no pixels."""

    path: Path
    where: str
    """The row that shows it first."""
    digest: bytes
    print: Print

    def __str__(self) -> str:
        return f"{self.where} {self.path}"


@dataclass
class Split:
    """What is kept of the rows of one side of a split."""

    pictures: dict[Path, Picture | None] = field(default_factory=dict)
    """None: cannot be read."""
    questions: dict[bytes, tuple[str, str | None]] = field(default_factory=dict)
    """Digest of a text with its pictures -> where it stands, and its answer."""
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def sound(self) -> list[Picture]:
        """The pictures that can be read."""
        return [picture for picture in self.pictures.values() if picture is not None]


@dataclass
class Report:
    """`problems` should be mended; `notes` are worth knowing."""

    problems: Findings
    notes: Findings
    statistics: dict[str, Any]


def check(files: Sequence[str], against: Sequence[str] = ()) -> Report:
    """Look at every row and every picture of `files`, and for what `against` shares with them.

    A leak is a picture on both sides, whatever is asked about it: the same bytes, or a near copy
    (`picture_print`), mirrored ones too. Memory grows with the number of pictures and rows, by
    less than a kilobyte each, not with their size.
    """
    problems, notes = Findings(), Findings()
    split = scan([resolve(file) for file in files], problems)
    _find_copies(split, problems, notes)
    if against:
        other = scan([resolve(file) for file in against], Findings())
        _find_leaks(split, other, problems)
    return Report(problems, notes, split.statistics.summary())


def scan(files: Iterable[Path], problems: Findings) -> Split:
    """Read every row once; what is wrong with a row or its media goes to `problems`."""
    split = Split()
    for where, prompt in _prompts(files, problems):
        for path in prompt.images:
            if path not in split.pictures:
                split.pictures[path] = _look(path, where, split.statistics, problems)
        for path in prompt.videos:
            _try_video(path, where, problems)
        _check_answer(prompt, where, problems)
        _check_repeated(prompt, where, split, problems)
        split.statistics.add(prompt)
    return split


def _prompts(files: Iterable[Path], problems: Findings) -> Iterator[tuple[str, Prompt]]:
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such prompt file")
        rows = 0
        progress = Console(stderr=True)
        for where, raw in track(raw_rows(file), file.name, console=progress, transient=True):
            rows += 1
            try:
                yield where, read_prompt(fields(where, raw), file.parent, where)
            except DataError as error:
                problems.add("row cannot be used", str(error))
        if not rows:
            problems.add("file without prompts", str(file))


def _look(path: Path, where: str, statistics: Statistics, problems: Findings) -> Picture | None:
    try:
        image = read_image(path)
    except DataError as error:
        problems.add("picture cannot be read", f"{where}: {error}")
        return None
    statistics.sizes[image.size] += 1
    digest = hashlib.sha256(path.read_bytes()).digest()
    return Picture(path, where, digest, picture_print(image))


def _try_video(path: Path, where: str, problems: Findings) -> None:
    try:
        read_video(path, 1)
    except DataError as error:
        problems.add("video cannot be read", f"{where}: {error}")


def _check_answer(prompt: Prompt, where: str, problems: Findings) -> None:
    if prompt.answer is None:
        return
    listed = options(prompt.text)
    if not prompt.answer.strip():
        problems.add("empty answer", where)
    elif listed and not is_option(prompt.answer, listed):
        names = ", ".join(listed)
        problems.add("answer is no option", f"{where}: {prompt.answer!r:.60}, options {names}")


def _check_repeated(prompt: Prompt, where: str, split: Split, problems: Findings) -> None:
    shown = [split.pictures[path] for path in prompt.images]
    parts = [prompt.text.encode(), *(p.digest if p else b"" for p in shown)]
    parts += [str(path).encode() for path in prompt.videos]
    key = hashlib.sha256(b"\0".join(parts)).digest()
    first, answer = split.questions.setdefault(key, (where, prompt.answer))
    if first != where and answer == prompt.answer:
        problems.add("prompt repeated", f"{where} as {first}")
    elif first != where:
        problems.add(
            "same question, other answer", f"{where}: {prompt.answer!r}, {first}: {answer!r}"
        )


def _find_copies(split: Split, problems: Findings, notes: Findings) -> None:
    """Pictures of the same bytes under two names, and near copies, inside one split."""
    pictures, first = split.sound, {}
    for picture in pictures:
        original = first.setdefault(picture.digest, picture)
        if original is not picture:
            problems.add("picture stored twice", f"{picture.path} as {original.path}")
    unique = list(first.values())
    for picture, scene in zip(unique, scenes(stack([p.print for p in unique])), strict=True):
        if unique[scene] is not picture:
            notes.add("near copy of a picture", f"{picture.path} of {unique[scene].path}")


def _find_leaks(split: Split, other: Split, problems: Findings) -> None:
    theirs = {picture.digest: picture for picture in other.sound}
    same = [picture for picture in split.sound if picture.digest in theirs]
    for picture in same:
        twin = theirs[picture.digest]
        problems.add("leak: same picture", f"{picture} = {twin}")
    rest = [picture for picture in split.sound if picture.digest not in theirs]
    unique = list(theirs.values())
    twins: dict[int, int] = {}
    for mine, found in near_pairs(stack([p.print for p in rest]), stack([p.print for p in unique])):
        twins.setdefault(mine, found)
    for mine, found in twins.items():
        picture = rest[mine]
        problems.add("leak: near copy of a picture", f"{picture} ~ {unique[found]}")
    for key in split.questions.keys() & other.questions.keys():
        problems.add("leak: same prompt", f"{split.questions[key][0]} = {other.questions[key][0]}")
