"""Finished samples from files: videos, pictures and answers, read a few at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from mmrl.config import Config
from mmrl.data.prompts import DataError, check_image
from mmrl.data.video import read_video, video_fps
from mmrl.evaluate.result import Result, Row
from mmrl.reward import RewardTable
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

    def load(self) -> Sample:
        """Decode it; DataError names a file that cannot be read."""
        if self.media is None:
            return TextSample(self.prompt, self.text or "", num_tokens=0)
        return VideoSample(self.prompt, read_video(self.media), fps=video_fps(self.media))


def find_samples(paths: Sequence[Path], prompt: str | None = None) -> list[FileSample]:
    """Samples of JSONL files, of folders that hold one, and of media files.

    A JSONL line has `prompt` and `video` (a video or picture beside the file) or `text` (an
    answer), and may have answer, images, metadata, seed, confidence. A folder without index.jsonl
    stands for the media in it. The prompt of a media file is `prompt`, or the text of the `.txt`
    file beside it.
    """
    found = []
    for path in paths:
        if path.suffix == ".jsonl" or (path / "index.jsonl").is_file():
            found += _from_lines(path if path.suffix == ".jsonl" else path / "index.jsonl")
        elif path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in VIDEOS + PICTURES]
            found += [_from_media(one, prompt) for one in inside]
        else:
            found.append(_from_media(path, prompt))
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no video, picture or index.jsonl there")
    return found


def score_files(samples: Sequence[FileSample], rewards: RewardTable, *, rows: int = 4) -> Result:
    """Every reward on every sample, `rows` decoded at a time.

    A file that cannot be decoded has no score and says why in its metadata; the others go on.
    """
    groups = {text: number for number, text in enumerate(dict.fromkeys(map(_identity, samples)))}
    found = []
    for start in track(range(0, len(samples), rows), description="score", transient=True):
        part = samples[start : start + rows]
        loaded, errors = _load(part)
        scores = rewards.score_samples(list(loaded.values()))
        places = {index: place for place, index in enumerate(loaded)}
        for index, sample in enumerate(part):
            group, error = groups[_identity(sample)], errors.get(index)
            found.append(_row(sample, group, scores, places.get(index), error))
    digest = hashlib.sha256("".join(row.sha256 or row.text or "" for row in found).encode())
    return Result({"files": len(found), "sha256": digest.hexdigest()}, describe(rewards), found)


def describe(rewards: RewardTable) -> dict[str, dict[str, Any]]:
    """Fields of every reward, and the origin it tells of itself."""
    found = {}
    for name, reward in rewards.rewards.items():
        fields = reward.model_dump(mode="json") if isinstance(reward, Config) else {}
        origin = getattr(reward, "origin", dict)
        found[name] = {**fields, **origin()}
    return found


def _load(part: Sequence[FileSample]) -> tuple[dict[int, Sample], dict[int, str]]:
    loaded, errors = {}, {}
    for index, sample in enumerate(part):
        try:
            loaded[index] = sample.load()
        except DataError as error:
            errors[index] = str(error)
    return loaded, errors


def _row(
    sample: FileSample,
    group: int,
    scores: Mapping[str, Float[Tensor, " B"]],
    place: int | None,
    error: str | None,
) -> Row:
    values = {name: math.nan if place is None else v[place].item() for name, v in scores.items()}
    media = sample.media
    return Row(
        prompt=sample.prompt.text,
        group=group,
        seed=sample.seed,
        scores={name: v if math.isfinite(v) else None for name, v in values.items()},
        metadata={**sample.prompt.metadata, **({"error": error} if error else {})},
        text=sample.text,
        answer=sample.prompt.answer,
        media=str(media) if media else None,
        sha256=hashlib.sha256(media.read_bytes()).hexdigest() if media else None,
        confidence=sample.confidence,
    )


def _identity(sample: FileSample) -> str:
    return json.dumps([sample.prompt.text, *map(str, sample.prompt.images)])


def _from_media(path: Path, prompt: str | None) -> FileSample:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() not in VIDEOS + PICTURES:
        raise DataError(f"{path}: expected a video or a picture ({', '.join(VIDEOS + PICTURES)})")
    beside = path.with_suffix(".txt")
    if prompt is None and not beside.is_file():
        raise DataError(f"{path}: has no prompt; give --prompt TEXT or put it into {beside.name}")
    text = beside.read_text("utf-8").strip() if prompt is None else prompt
    if not text:
        raise DataError(f"{path}: its prompt is empty")
    return FileSample(Prompt(text), path, None)


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
    prompt, video, text = entry.get("prompt"), entry.get("video"), entry.get("text")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{where}: 'prompt' must be a non-empty string, got {prompt!r}")
    if (video is None) == (text is None):
        raise DataError(f"{where}: needs either 'video' (a file) or 'text' (an answer)")
    images = tuple(file.parent / name for name in entry.get("images", ()))
    for image in images:
        check_image(image, where)
    media = file.parent / video if video is not None else None
    if media is not None and not media.is_file():
        raise DataError(f"{where}: {media} does not exist")
    confidence = entry.get("confidence")
    if confidence is not None and not 0 <= confidence <= 1:
        raise DataError(f"{where}: 'confidence' must lie in [0, 1], got {confidence}")
    answer = entry.get("answer")
    asked = Prompt(
        prompt,
        images=images,
        answer=None if answer is None else str(answer),
        metadata=entry.get("metadata", {}),
    )
    return FileSample(asked, media, text, entry.get("seed"), confidence)
