"""Finished samples as files name them: media, folders, JSONL lines; nothing is decoded here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl.data.prompts import DataError, check_image, read_prompt
from mmrl.data.video import read_video, video_fps
from mmrl.types import Prompt, Sample, TextSample, VideoSample

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".webp")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FIELDS = ("prompt", "video", "text", "answer", "images", "metadata", "seed", "confidence")


@dataclass(frozen=True)
class FileSample:
    """One sample before it is read."""

    prompt: Prompt
    media: Path | None
    text: str | None
    seed: int | None = None
    confidence: float | None = None
    alone: bool = False
    """Whether it is resampled by itself: its prompt was given for all files at once."""

    def load(self, count: int | None = None) -> Sample:
        """Decode it, or `count` evenly spread frames; DataError names an unreadable file."""
        if self.media is None:
            return TextSample(self.prompt, self.text or "", num_tokens=0)
        return VideoSample(self.prompt, read_video(self.media, count), fps=video_fps(self.media))


def find_samples(
    paths: Sequence[Path], prompt: str | None = None, *, needs_prompt: bool = True
) -> list[FileSample]:
    """Samples of JSONL files, of folders that hold one, and of media files.

    A JSONL line has `prompt` and `video` (a video or picture beside the file) or `text` (an
    answer), and may have answer, images, metadata, seed, confidence. A folder without index.jsonl
    stands for the media in it. The prompt of a media file is `prompt`, or the text of the `.txt`
    file beside it; with `needs_prompt` off it may have none.
    """
    found = []
    for path in paths:
        if path.suffix == ".jsonl" or (path / "index.jsonl").is_file():
            found += _from_lines(path if path.suffix == ".jsonl" else path / "index.jsonl")
        elif path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in VIDEOS + PICTURES]
            found += [_from_media(one, prompt, needs_prompt) for one in inside]
        else:
            found.append(_from_media(path, prompt, needs_prompt))
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no video, picture or index.jsonl there")
    return found


def _from_media(path: Path, prompt: str | None, needs_prompt: bool) -> FileSample:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() not in VIDEOS + PICTURES:
        raise DataError(f"{path}: expected a video or a picture ({', '.join(VIDEOS + PICTURES)})")
    beside = path.with_suffix(".txt")
    if prompt is None and not beside.is_file():
        if not needs_prompt:
            return FileSample(Prompt(""), path, None, alone=True)
        raise DataError(f"{path}: has no prompt; give --prompt TEXT or put it into {beside.name}")
    text = beside.read_text("utf-8").strip() if prompt is None else prompt
    if needs_prompt and not text.strip():
        raise DataError(f"{path}: its prompt is empty")
    return FileSample(Prompt(text), path, None, alone=prompt is not None)


def _from_lines(file: Path) -> Iterator[FileSample]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            yield _from_line(file, f"{file}:{number}", line)


def _from_line(file: Path, where: str, line: str) -> FileSample:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    unknown = sorted(set(entry) - set(FIELDS)) if isinstance(entry, dict) else ["not an object"]
    if unknown:
        raise DataError(f"{where}: unknown field '{unknown[0]}' (known: {', '.join(FIELDS)})")
    text = entry.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: 'prompt' must be a non-empty string, got {text!r:.80}")
    video, answer = _words(entry, "video", where), _words(entry, "text", where)
    if (video is None) == (answer is None):
        raise DataError(f"{where}: needs either 'video' (a file) or 'text' (an answer)")
    plain = {name: entry[name] for name in ("answer", "images", "metadata") if name in entry}
    prompt = read_prompt({"text": text, **plain}, file.parent, where)
    for image in prompt.images:
        check_image(image, where)
    media = None if video is None else file.parent / video
    if media is not None and not media.is_file():
        raise DataError(f"{where}: {media} does not exist")
    confidence = _number(entry, "confidence", where)
    if confidence is not None and not 0 <= confidence <= 1:
        raise DataError(f"{where}: 'confidence' must lie in [0, 1], got {confidence}")
    seed = _number(entry, "seed", where)
    if seed is not None and int(seed) != seed:
        raise DataError(f"{where}: 'seed' must be a whole number, got {seed}")
    return FileSample(prompt, media, answer, None if seed is None else int(seed), confidence)


def _words(entry: Mapping[str, Any], name: str, where: str) -> str | None:
    found = entry.get(name)
    if found is not None and not isinstance(found, str):
        raise DataError(f"{where}: '{name}' must be a string, got {found!r:.80}")
    return found


def _number(entry: Mapping[str, Any], name: str, where: str) -> float | None:
    found = entry.get(name)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise DataError(f"{where}: '{name}' must be a number, got {found!r:.80}")
    return found
