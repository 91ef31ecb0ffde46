"""Real generated videos, each with its own prompt and with another one's."""

from __future__ import annotations

import re
from pathlib import Path

from mmrl.data.packaged.dataset import Dataset, write_jsonl
from mmrl.data.packaged.templates import WORKFLOWS, prompted_media

EDIT = re.compile(
    r"edit|v2v|inpaint|outpaint|control|replacement|ic_lora|reference|ref2v|r2v|vace_flf2v|extend"
)
"""In the names of workflows that change a given video: their prompts tell the change."""
TEXT = re.compile(r"t2v|text_to_video|txt_to")


def write_prompts(folder: Path) -> dict[str, int]:
    """index.jsonl: every video with its prompt, then every prompt with a video half a list away.

    Of several workflows with one prompt the first stays. `metadata.kind` is t2v, i2v or edit,
    `metadata.pair` is matched or mismatched.
    """
    seen: dict[str, tuple[Path, str]] = {}
    for file, workflow, prompt in prompted_media(folder):
        if file.stem.endswith("-1"):
            seen.setdefault(prompt, (file.relative_to(folder), workflow))
    pairs = [(prompt, file, workflow) for prompt, (file, workflow) in seen.items()]
    matched = [_entry(prompt, file, workflow, "matched") for prompt, file, workflow in pairs]
    shift = len(pairs) // 2
    others = pairs[shift:] + pairs[:shift]
    mismatched = [
        _entry(prompt, other, workflow, "mismatched")
        for (prompt, _, workflow), (_, other, _) in zip(pairs, others, strict=True)
    ]
    write_jsonl(folder / "index.jsonl", [*matched, *mismatched])
    kinds = [entry["metadata"]["kind"] for entry in matched]
    return {"videos": len(pairs), **{kind: kinds.count(kind) for kind in ("t2v", "i2v", "edit")}}


def kind_of(workflow: str) -> str:
    """Whether a workflow draws from text, from a picture, or changes a video."""
    if EDIT.search(workflow):
        return "edit"
    return "t2v" if TEXT.search(workflow) else "i2v"


def _entry(prompt: str, file: Path, workflow: str, pair: str) -> dict:
    metadata = {"pair": pair, "kind": kind_of(workflow), "workflow": workflow}
    return {"prompt": prompt, "video": file.as_posix(), "metadata": metadata}


DATASET = Dataset(
    package="comfyui-workflow-templates-media-video",
    version="0.3.101",
    archive="comfyui_workflow_templates_media_video-0.3.101-py3-none-any.whl",
    sha256="6270fd61c8c3931b6f0031abac7d4c90ced624de6c7918bff85b89e6c3d7493c",
    license="MIT package; pictures are outputs of many models, not for redistribution",
    prefix="comfyui_workflow_templates_media_video/",
    only=("templates/",),
    megabytes=104,
    summary="real generated videos with their prompts, matched and mismatched",
    write_prompts=write_prompts,
    others=(WORKFLOWS,),
)
