"""Generated media with their prompts, out of ComfyUI's workflow templates.

`NAME-1.webp` is what the workflow `NAME.json` made; the prompt stands in one of its nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrl.data.packaged.dataset import Archive

MEDIA = (".webp", ".png", ".jpg", ".jpeg")
NO_PROMPT = ("Note", "ComfyMath", "ManualSigmas", "CustomCombo", "Regex", "Switch")
"""In the types of nodes whose texts are no prompts."""
NEGATIVE = re.compile(
    r"(blurry|low quality|worst|bad |poor |ugly|watermark|pc game|nsfw|text, |deformed|distorted"
    r"|lowres|overexposed|static|oversaturated|vivid colors|embedding:|cartoon, )",
    re.IGNORECASE,
)
"""How the text begins of what shall not be drawn."""
SYSTEM = re.compile(
    r"(you are |your |role:|step \d|analy[sz]e |describe |input |\*|#|[{<]|\[\s*[{\d\[]|http)",
    re.IGNORECASE,
)
"""How instructions to a language model, data and links begin."""
LEAST_WORDS = 4
WORKFLOWS = Archive(
    package="comfyui-workflow-templates-json",
    version="0.1.123",
    archive="comfyui_workflow_templates_json-0.1.123-py3-none-any.whl",
    sha256="fc321960cfc4f52dddc3ee111f33489b167eb7958028eb5b6a7f3fa8865a385e",
    prefix="comfyui_workflow_templates_json/",
    only=("templates/",),
    megabytes=4,
)


def prompted_media(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Each media file below `folder` whose workflow has a prompt: file, workflow, prompt."""
    prompts = {file.stem: positive_prompt(_read(file)) for file in sorted(folder.rglob("*.json"))}
    for file in sorted(folder.rglob("*")):
        workflow = file.stem.rsplit("-", 1)[0]
        prompt = prompts.get(workflow)
        if file.suffix in MEDIA and prompt is not None:
            yield file, workflow, prompt


def positive_prompt(workflow: dict[str, Any]) -> str | None:
    """The longest text of a workflow's nodes that asks for something; None where there is none."""
    found = [
        " ".join(text.split())
        for node in nodes(workflow)
        if not any(mark in str(node.get("type")) for mark in NO_PROMPT)
        and "negative" not in str(node.get("title")).lower()
        for text in texts(node.get("widgets_values"))
        if is_prompt(text)
    ]
    return max(found, key=len, default=None)


def is_prompt(text: str) -> bool:
    """Whether a widget's text can be a prompt: English words, wanted, not data."""
    text = text.strip()
    letters = sum(char.isascii() and (char.isalpha() or char.isspace()) for char in text)
    return (
        len(text.split()) >= LEAST_WORDS
        and letters > 0.8 * len(text)
        and not NEGATIVE.match(text)
        and not SYSTEM.match(text)
    )


def nodes(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Nodes of the graph and of the graphs inside its nodes."""
    yield from workflow.get("nodes", ())
    for inner in workflow.get("definitions", {}).get("subgraphs", ()):
        yield from inner.get("nodes", ())


def texts(value: Any) -> Iterator[str]:
    """Every string inside lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def _read(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
