"""Data of other formats as a folder of prompt files and pictures."""

from __future__ import annotations

import json
import os
import re
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console
from rich.progress import track

from mmrl.data.files import DataError, store_picture
from mmrl.data.rows import Raw, fields, raw_rows
from mmrl.data.schemas import COLUMNS, SCHEMAS, Entry, Schema, entries, recognize, renamed

Format = Literal[
    "auto", "jsonl", "parquet", "hf", "llava", "r1v", "easyr1", "vqa", "trl", "imagefolder"
]
SUFFIXES = {"jsonl": (".jsonl", ".json"), "parquet": (".parquet",)}
PICTURE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
QUESTION = "Which class does this picture show?"


@dataclass
class Summary:
    """What a conversion wrote."""

    schema: str = ""
    prompts: dict[str, int] = field(default_factory=dict)
    """By file name."""
    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows by column that holds a list or an object."""
    broken: list[str] = field(default_factory=list)
    """What is wrong with each row that was skipped."""


@dataclass(frozen=True)
class Reading:
    """How rows are read."""

    schema: Schema | None = None
    """None: the first row of each split decides; all have one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of a row's columns by what they hold: text, images, answer."""
    skip_broken: bool = False


@dataclass(frozen=True)
class Part:
    """One prompt file to be: its rows, and the folder that paths in them are relative to."""

    name: str
    rows: Iterable[Raw]
    folder: Path


def convert(
    source: Path,
    output: Path,
    *,
    form: str = "auto",
    images: Path | None = None,
    question: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_broken: bool = False,
) -> Summary:
    """Write `output`: a JSONL file a split, and the folder images/.

    `images` is the folder that picture paths are relative to, where it is not the file's own;
    `columns` names the columns of data in no known format by what they hold: text, images, answer.
    Nothing is left behind when a row is wrong: the DataError names it. With `skip_broken` such rows
    are left out instead, and the summary says what is wrong with each.
    """
    if form not in get_args(Format):
        raise DataError(f"--format {form}: no such format (known: {', '.join(get_args(Format))})")
    if output.exists():
        raise DataError(f"{output}: is there already; choose another folder")
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    parts = _parts(source, form, question or QUESTION)
    schema: Schema | None = next((name for name in SCHEMAS if name == form), None)
    if columns:
        schema = _check_columns(columns, form)
    reading = Reading(schema, columns or {}, skip_broken)
    summary = Summary()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        folder = Path(scratch) / "converted"
        folder.mkdir()
        for part in parts:
            lines = _lines(part, images or part.folder, folder, reading, summary)
            summary.prompts[f"{part.name}.jsonl"] = _write(
                folder / f"{part.name}.jsonl", lines, summary
            )
        summary.pictures = sum(1 for _ in folder.glob("images/*"))
        os.replace(folder, output)
    return summary


def _parts(source: Path, form: str, question: str) -> list[Part]:
    """The splits of a source. DataError when it does not have the shape that the format needs."""
    if source.is_file():
        if form in ("hf", "imagefolder"):
            raise DataError(f"{source}: format {form} is a folder, this is a file")
        if form in SUFFIXES and source.suffix not in SUFFIXES[form]:
            raise DataError(
                f"{source}: format {form} needs a name in {' or '.join(SUFFIXES[form])}"
            )
        return [Part(source.stem, raw_rows(source), source.parent)]
    if form == "imagefolder":
        return [_class_folders(source, question)]
    if form != "parquet" and (source / "dataset_dict.json").is_file():
        splits = json.loads((source / "dataset_dict.json").read_text("utf-8"))["splits"]
        return [Part(name, raw_rows(source / name), source / name) for name in splits]
    if form != "parquet" and (source / "state.json").is_file():
        return [Part(source.name, raw_rows(source), source)]
    if shards := sorted(source.rglob("*.parquet")):
        return _sharded(shards)
    if form == "auto":
        return [_class_folders(source, question)]
    raise DataError(f"{source}: holds no saved data set and no parquet files")


def _sharded(files: list[Path]) -> list[Part]:
    """Parquet files named split-00000-of-00002 belong together; others are splits of their own."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        found = SHARD.fullmatch(file.stem)
        splits.setdefault(found[1] if found else file.stem, []).append(file)
    return [
        Part(name, chain.from_iterable(map(raw_rows, shards)), shards[0].parent)
        for name, shards in splits.items()
    ]


def _class_folders(source: Path, question: str) -> Part:
    """Pictures in folders that are named as their class: a multiple-choice question over all."""
    classes = sorted(folder.name for folder in source.iterdir() if folder.is_dir())
    if len(classes) < 2 or len(classes) > len(string.ascii_uppercase):
        raise DataError(
            f"{source}: an image folder needs 2 to 26 folders, one a class, got {len(classes)}"
        )
    letters = dict(zip(classes, string.ascii_uppercase, strict=False))
    options = ", ".join(f"{letter}) {name}" for name, letter in letters.items())
    return Part(source.name, _pictures(source, letters, f"{question} {options}"), source)


def _pictures(source: Path, letters: dict[str, str], text: str) -> Iterator[Raw]:
    for file in sorted(source.rglob("*")):
        if file.is_dir() or file.name.startswith("."):
            continue
        if file.parent.parent != source:
            raise DataError(f"{file}: expected pictures as {source}/CLASS/PICTURE")
        if file.suffix.lower() not in PICTURE_FILES:
            raise DataError(f"{file}: no picture by its name (known: {', '.join(PICTURE_FILES)})")
        name = file.parent.name
        row = {"text": text, "images": [f"{name}/{file.name}"], "answer": letters[name]}
        yield str(file), row | {"metadata": {"label": name}}


def _check_columns(columns: Mapping[str, str], form: str) -> Schema:
    """The format that named columns make; DataError for a name that holds nothing we know."""
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown or "text" not in columns:
        what = f"'{unknown[0]}' is none of what" if unknown else "'text' is missing from what"
        raise DataError(f"--columns: {what} columns can hold ({', '.join(COLUMNS)})")
    if form in SCHEMAS:
        raise DataError(f"--columns names the columns itself; leave --format {form} out")
    return "trl"


def _lines(
    part: Part, base: Path, folder: Path, reading: Reading, summary: Summary
) -> Iterator[str]:
    """One line of JSON a prompt, its pictures stored below `folder`."""
    schema = reading.schema
    for where, raw in part.rows:
        try:
            row = fields(where, raw)
        except DataError as error:
            _skip(error, reading, summary)
            continue
        schema = schema or recognize(row, where)
        if summary.schema not in ("", schema):
            raise DataError(f"{where}: the columns are of {schema}, before of {summary.schema}")
        summary.schema = schema
        try:
            if reading.columns:
                row = renamed(row, reading.columns, where)
            found = list(entries(schema, row, where))
            lines = [_line(entry, base, folder, where) for entry in found]
        except DataError as error:
            _skip(error, reading, summary)
            continue
        for entry in found:
            summary.left_out.update(entry.left_out)
        yield from lines


def _skip(error: DataError, reading: Reading, summary: Summary) -> None:
    """Note a row that is left out; raise where broken rows are not skipped."""
    if not reading.skip_broken:
        raise error
    summary.broken.append(str(error))


def _line(entry: Entry, base: Path, folder: Path, where: str) -> str:
    contents = [_content(item, base, where) for item in entry.images]
    stored = [store_picture(content, folder / "images", where) for content in contents]
    line: dict[str, object] = {"text": entry.text}
    if stored:
        line["images"] = [file.relative_to(folder).as_posix() for file in stored]
    if entry.answer is not None:
        line["answer"] = entry.answer
    if entry.metadata:
        line["metadata"] = entry.metadata
    return json.dumps(line, ensure_ascii=False) + "\n"


def _content(item: object, base: Path, where: str) -> bytes:
    """The bytes of a picture: given as such, as Hugging Face's {bytes, path}, or as a path."""
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str) or not item:
        raise DataError(f"{where}: field 'images': expected a path or bytes, got {item!r:.80}")
    if "://" in item:
        raise DataError(f"{where}: field 'images': {item} is an address; nothing is downloaded")
    file = base / item
    if not file.is_file():
        raise DataError(f"{where}: field 'images': {file} does not exist")
    return file.read_bytes()


def _write(path: Path, lines: Iterable[str], summary: Summary) -> int:
    """How many lines; DataError where there are none."""
    count = 0
    progress = Console(stderr=True)
    with path.open("w", encoding="utf-8") as sink:
        for line in track(lines, description=path.stem, console=progress, transient=True):
            sink.write(line)
            count += 1
    if not count and summary.broken:
        raise DataError(f"{path.stem}: no row could be read, the last one: {summary.broken[-1]}")
    if not count:
        raise DataError(f"{path.stem}: the source holds no rows")
    return count
