"""Before and after, side by side: videos that move, pictures with the model's answers."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmrl.config import UserError
from mmrl.data.answers import answer_block
from mmrl.report.changes import number

MAX_SIDE = 224
MIME = {
    ".webp": "image/webp",
    ".png": "image/png",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
STILL = (".png", ".jpg", ".jpeg")
WHEN = ("before", "after")


def gallery_html(run: Path) -> str:
    """The run's gallery as HTML with every picture inside, or nothing where it has none."""
    index = run / "gallery" / "index.json"
    if not index.is_file():
        return ""
    entries: list[dict[str, Any]] = json.loads(index.read_text("utf-8"))
    cards = [_card(index.parent, entry) for entry in entries]
    return f'<div class="gallery">{"".join(cards)}</div>' if cards else ""


def data_uri(path: Path) -> str:
    """A picture file as a data: address; large still pictures are made smaller first.

    UserError where the file is missing or of a kind no browser shows.
    """
    suffix = path.suffix.lower()
    if suffix not in MIME or not path.is_file():
        raise UserError(f"{path}: expected a picture file ({', '.join(MIME)}); is it missing?")
    content, kind = path.read_bytes(), MIME[suffix]
    if suffix in STILL:
        content, kind = _shrink(content, kind)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _shrink(content: bytes, kind: str) -> tuple[bytes, str]:
    with Image.open(io.BytesIO(content)) as image:
        if max(image.size) <= MAX_SIDE:
            return content, kind
        small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    sink = io.BytesIO()
    small.save(sink, "PNG", optimize=True)
    return sink.getvalue(), "image/png"


def _card(folder: Path, entry: dict[str, Any]) -> str:
    if entry.get("kind") == "video":
        return (
            f'<article class="card"><p class="prompt">{escape(entry["prompt"])}</p>'
            f'{_videos(folder, entry)}<p class="quiet">same seed, {entry.get("seed", "?")}</p>'
            "</article>"
        )
    return f'<article class="card wide">{_answers(folder, entry)}</article>'


def _videos(folder: Path, entry: dict[str, Any]) -> str:
    halves = []
    for when in WHEN:
        if reason := entry.get(f"broken_{when}"):
            halves.append(f'<div><p class="quiet">{when}: no video, {escape(reason)}</p></div>')
        if not entry.get(when):
            continue
        label = escape(f"{when} training: {entry['prompt']}", quote=True)
        image = f'<img alt="{label}" src="{data_uri(folder / entry[when])}">'
        halves.append(f'<div>{image}<p class="quiet">{when}{_score(entry, when)}</p></div>')
    return f'<div class="pair">{"".join(halves)}</div>'


def _answers(folder: Path, entry: dict[str, Any]) -> str:
    picture = ""
    if entry.get("image"):
        uri = data_uri(folder / entry["image"])
        picture = f'<img class="still" alt="the picture the prompt asks about" src="{uri}">'
    parts = [f'<p class="prompt">{escape(entry["prompt"])}</p>']
    if entry.get("answer") is not None:
        parts.append(f'<p class="quiet">reference <b>{escape(str(entry["answer"]))}</b></p>')
    for when in WHEN:
        if entry.get(when) is not None:
            head = f"{when}{_score(entry, when)} {_mark(entry, when)}"
            parts.append(
                f'<p class="quiet">{head}</p><blockquote>{escape(entry[when])}</blockquote>'
            )
    return f"{picture}<div>{''.join(parts)}</div>"


def _mark(entry: dict[str, Any], when: str) -> str:
    """Right or wrong as the accuracy reward says; without one, as the answer block says."""
    if entry.get("answer") is None:
        return ""
    accuracy = (entry.get(f"scores_{when}") or {}).get("accuracy")
    same = answer_block(entry[when]) == str(entry["answer"])
    right = same if accuracy is None else accuracy >= 0.5
    word = "\u2713 right" if right else "\u2717 wrong"
    return f'<b class="{"right" if right else "wrong"}">{word}</b>'


def _score(entry: dict[str, Any], when: str) -> str:
    value = (entry.get(f"scores_{when}") or {}).get("reward")
    return f' \u00b7 <span class="score">reward {number(value)}</span>' if value is not None else ""
