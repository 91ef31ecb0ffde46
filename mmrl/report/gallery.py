"""Before and after, side by side: videos that move, pictures with the model's answers."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmrl.data.answers import answer_block

MAX_SIDE = 224
MIME = {".webp": "image/webp", ".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}


def gallery_html(run: Path) -> str:
    """The run's gallery as HTML with every picture inside, or nothing where it has none."""
    index = run / "gallery" / "index.json"
    if not index.is_file():
        return ""
    entries: list[dict[str, Any]] = json.loads(index.read_text("utf-8"))
    cards = [_card(index.parent, entry) for entry in entries]
    return f'<div class="gallery">{"".join(cards)}</div>' if cards else ""


def data_uri(path: Path) -> str:
    """A picture file as a data: address; large still pictures are made smaller first."""
    content, kind = path.read_bytes(), MIME[path.suffix.lower()]
    if path.suffix.lower() in (".png", ".jpg"):
        with Image.open(path) as image:
            if max(image.size) > MAX_SIDE:
                image.thumbnail((MAX_SIDE, MAX_SIDE))
                sink = io.BytesIO()
                image.convert("RGB").save(sink, "PNG", optimize=True)
                content, kind = sink.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _card(folder: Path, entry: dict[str, Any]) -> str:
    shown = _videos(folder, entry) if entry.get("kind") == "video" else _answers(folder, entry)
    return f'<article class="card"><p class="prompt">{escape(entry["prompt"])}</p>{shown}</article>'


def _videos(folder: Path, entry: dict[str, Any]) -> str:
    halves = []
    for when in ("before", "after"):
        if when not in entry:
            continue
        label = f"{when}: {entry['prompt']}"
        image = f'<img alt="{escape(label, quote=True)}" src="{data_uri(folder / entry[when])}">'
        halves.append(f"<div>{image}<small>{when}{_score(entry, when)}</small></div>")
    return f'<div class="pair">{"".join(halves)}</div>'


def _answers(folder: Path, entry: dict[str, Any]) -> str:
    parts = []
    if "image" in entry:
        uri = data_uri(folder / entry["image"])
        parts.append(f'<img class="still" alt="{escape(entry["prompt"], quote=True)}" src="{uri}">')
    for when in ("before", "after"):
        if when in entry:
            parts.append(
                f"<p><small>{when} {_mark(entry, when)}</small><br>{escape(entry[when])}</p>"
            )
    if entry.get("answer") is not None:
        parts.append(f"<p><small>reference</small> {escape(str(entry['answer']))}</p>")
    return "".join(parts)


def _mark(entry: dict[str, Any], when: str) -> str:
    if entry.get("answer") is None:
        return ""
    right = answer_block(entry[when]) == str(entry["answer"])
    return '<b class="right">right</b>' if right else '<b class="wrong">wrong</b>'


def _score(entry: dict[str, Any], when: str) -> str:
    value = entry.get(f"scores_{when}", {}).get("reward")
    return f" &middot; reward {value:.2f}" if value is not None else ""
