"""Rows of data files, one at a time: JSONL, JSON lists, parquet, a saved Hugging Face data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mmrl.data.files import DataError

BATCH = 64
"""Rows of a parquet file in memory at a time."""
Raw = tuple[str, str | dict[str, Any]]
"""Where a row stands, and the row: a line of text that is not parsed yet, or its fields."""


def raw_rows(path: Path) -> Iterator[Raw]:
    """Every row with its place. A line is parsed by `fields`, so that one bad line stands alone."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        yield from _saved_rows(path)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".json":
        yield from _json_rows(path)
    else:
        yield from _lines(path)


def fields(where: str, raw: str | dict[str, Any]) -> dict[str, Any]:
    """The row as an object; DataError with its place otherwise."""
    entry: Any = raw
    if isinstance(raw, str):
        try:
            entry = json.loads(raw)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not valid JSON: {error.msg} at column {error.colno}"
            ) from error
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object, got {type(entry).__name__}")
    return entry


def _lines(path: Path) -> Iterator[Raw]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _json_rows(path: Path) -> Iterator[Raw]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, got {type(content).__name__}")
    for number, entry in enumerate(content, start=1):
        where = f"{path}: row {number}"
        yield where, fields(where, entry)


def _parquet_rows(path: Path) -> Iterator[Raw]:
    parquet = _optional("pyarrow.parquet", path)
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:
        raise DataError(f"{path}: not a parquet file: {error}") from error
    number = 0
    with file:
        for batch in file.iter_batches(batch_size=BATCH):
            for entry in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", entry


def _saved_rows(path: Path) -> Iterator[Raw]:
    """Pictures stay bytes, and class labels become their names."""
    datasets = _optional("datasets", path)
    try:
        data = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no data set saved by `save_to_disk`: {error}") from error
    labels = {}
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            data = data.cast_column(name, datasets.List(datasets.Image(decode=False)))
        elif isinstance(feature, datasets.ClassLabel):
            labels[name] = feature
    for number, entry in enumerate(data, start=1):
        named = {k: f.int2str(entry[k]) for k, f in labels.items() if entry[k] is not None}
        yield f"{path}: row {number}", entry | named


def _optional(module: str, path: Path) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"{path}: needs {module.split('.', maxsplit=1)[0]}; run `pip install mmrl[data]`"
        ) from error
