"""Generated pictures and videos with their prompts, beside those of `video_real`."""

from __future__ import annotations

from pathlib import Path

from mmrl.data.packaged.dataset import Archive, Dataset, write_jsonl
from mmrl.data.packaged.templates import WORKFLOWS, prompted_media


def write_prompts(folder: Path) -> dict[str, int]:
    """index.jsonl: each media file with its workflow's prompt."""
    entries = [
        {
            "prompt": prompt,
            "video": file.relative_to(folder).as_posix(),
            "metadata": {"workflow": workflow},
        }
        for file, workflow, prompt in prompted_media(folder)
    ]
    workflows = {entry["metadata"]["workflow"] for entry in entries}
    return {"media": write_jsonl(folder / "index.jsonl", entries), "workflows": len(workflows)}


def _media(name: str, version: str, sha256: str, megabytes: int) -> Archive:
    """One of the packages that hold the templates' media."""
    package = f"comfyui-workflow-templates-media-{name}"
    module = package.replace("-", "_")
    return Archive(
        package=package,
        version=version,
        archive=f"{module}-{version}-py3-none-any.whl",
        sha256=sha256,
        prefix=f"{module}/",
        only=("templates/",),
        megabytes=megabytes,
    )


IMAGES = _media(
    "image", "0.3.160", "d4a5c5541c7088f6adb1c7da41f5d7c1c14a037eda6a61cd8b4b76c251faaa93", 89
)
DATASET = Dataset(
    **vars(IMAGES),
    license="MIT packages; pictures are outputs of many models, not for redistribution",
    summary="generated pictures and videos with their prompts",
    write_prompts=write_prompts,
    others=(
        _media(
            "api",
            "0.3.84",
            "c2d6a5999ac39e4f37f47ae231c92557defe5addb2cc6ab5c11410b4d5a2910a",
            100,
        ),
        _media(
            "other",
            "0.3.229",
            "ce3d98fa9d84b914c335fe5c9bc903cfefbe1932b1bc3cb6baef7f371b4bd435",
            89,
        ),
        _media(
            "assets-01",
            "0.1.48",
            "7733ed12867e95e6b8b39be20bcc73579c28e97e5a44086ffb977cc2c1c78c43",
            94,
        ),
        _media(
            "assets-02",
            "0.1.24",
            "ddc94f46da4987ec6e9a4ced6007eaaca126899beea6242ece786e49cd14b065",
            48,
        ),
        WORKFLOWS,
    ),
)
