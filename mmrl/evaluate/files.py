"""Score finished samples that lie in files, a few in memory at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress

from mmrl.config import Config, UserError
from mmrl.data.prompts import DataError
from mmrl.evaluate.result import Result
from mmrl.evaluate.row import Row, file_hash, pictures_hash, prompt_set
from mmrl.evaluate.samples import FileSample
from mmrl.reward import RewardConfig, RewardTable
from mmrl.reward.base import sample_kind
from mmrl.types import Sample, TextSample, VideoSample

BATCH_BYTES = 2**30
"""Decoded videos after which a batch is scored, however few samples it holds."""


@dataclass
class Judged:
    """What the rewards said of one sample."""

    scores: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    """Why it could not be read."""


def score_files(samples: Sequence[FileSample], rewards: RewardTable, *, rows: int = 4) -> Result:
    """Every reward on every sample, at most `rows` decoded at a time.

    Where rewards read `num_frames` evenly spread frames, only these are decoded. A file that
    cannot be decoded and a sample on which a reward fails have no score and say why; the others go
    on. UserError names a reward that can read none of the samples, ConfigError one that could not
    score.
    """
    check_kinds(samples, rewards)
    rewards.check()
    judged = [Judged() for _ in samples]
    rules = frame_rules(rewards)
    with Progress(transient=True) as progress:
        task = progress.add_task("score", total=len(samples) * len(rules))
        for count, names in rules.items():
            for loaded, errors in _batches(samples, count, rows):
                _judge(judged, rewards, names, loaded, errors)
                progress.advance(task, len(loaded) + len(errors))
                loaded.clear()  # before the next ones are decoded
    units = list(dict.fromkeys(map(_unit, samples)))
    numbers = {unit: number for number, unit in enumerate(units)}
    order = list(rewards.rewards)
    found = [
        _row(sample, numbers[_unit(sample)], one, order)
        for sample, one in zip(samples, judged, strict=True)
    ]
    digest = hashlib.sha256("".join(row.sha256 or row.text or "" for row in found).encode())
    subject = {
        "files": len(found),
        "sha256": digest.hexdigest(),
        "prompts_sha256": prompt_set(found),
        "resampled": _resampled(samples),
    }
    return Result(subject, describe(rewards), found)


def check_kinds(samples: Sequence[FileSample], rewards: RewardTable) -> None:
    """UserError names a reward of written answers where all are videos, or the other way round."""
    kinds = {TextSample if sample.media is None else VideoSample for sample in samples}
    for name, reward in rewards.rewards.items():
        wanted = sample_kind(reward)
        if wanted is not None and wanted not in kinds:
            told = "written answers" if wanted is TextSample else "videos and pictures"
            there = "a video or a picture" if wanted is TextSample else "a written answer"
            raise UserError(
                f"reward '{name}' scores {told}, and every sample here is {there}; "
                "leave it out of --rewards"
            )


def describe(rewards: RewardTable) -> dict[str, dict[str, Any]]:
    """Fields of every reward, and the origin it tells of itself."""
    found = {}
    for name, reward in rewards.rewards.items():
        fields = reward.model_dump(mode="json") if isinstance(reward, Config) else {}
        origin = getattr(reward, "origin", dict)
        found[name] = {**fields, **origin()}
    return found


def frame_rules(rewards: RewardTable) -> dict[int | None, list[str]]:
    """Names of the rewards by the count of evenly spread frames they read; None: every frame."""
    found: dict[int | None, list[str]] = {}
    for name, reward in rewards.rewards.items():
        spread = isinstance(reward, RewardConfig) and reward.reads_spread_frames
        count = getattr(reward, "num_frames", None) if spread else None
        found.setdefault(count, []).append(name)
    return found


def _batches(
    samples: Sequence[FileSample], count: int | None, rows: int
) -> Iterator[tuple[dict[int, Sample], dict[int, str]]]:
    """Samples by their place, and why others could not be read."""
    loaded: dict[int, Sample] = {}
    errors: dict[int, str] = {}
    for index, sample in enumerate(samples):
        try:
            loaded[index] = sample.load(count)
        except DataError as error:
            errors[index] = str(error)
        size = sum(s.video.nbytes for s in loaded.values() if isinstance(s, VideoSample))
        if len(loaded) + len(errors) == rows or size >= BATCH_BYTES:
            yield loaded, errors
            loaded, errors = {}, {}
    if loaded or errors:
        yield loaded, errors


def _judge(
    judged: Sequence[Judged],
    rewards: RewardTable,
    names: Sequence[str],
    loaded: dict[int, Sample],
    errors: dict[int, str],
) -> None:
    found = rewards.judge(list(loaded.values()), names=names, stops=False) if loaded else {}
    for name, scored in found.items():
        told = zip(loaded, scored.values.tolist(), scored.failures(), strict=True)
        for index, value, failure in told:
            judged[index].scores[name] = value
            if failure:
                judged[index].failures[name] = failure
    for index, error in errors.items():
        judged[index].error = error
        judged[index].scores |= dict.fromkeys(names, math.nan)
        judged[index].failures |= dict.fromkeys(names, f"unreadable: {error}")


def _row(sample: FileSample, group: int, found: Judged, names: Sequence[str]) -> Row:
    media = sample.media
    values = {name: found.scores[name] for name in names}
    return Row(
        prompt=sample.prompt.text,
        group=group,
        seed=sample.seed,
        scores={name: v if math.isfinite(v) else None for name, v in values.items()},
        metadata={**sample.prompt.metadata, **({"error": found.error} if found.error else {})},
        text=sample.text,
        answer=sample.prompt.answer,
        media=str(media) if media else None,
        sha256=file_hash(media) if media else None,
        confidence=sample.confidence,
        pictures=pictures_hash(sample.prompt.images),
        failures=found.failures,
    )


def _unit(sample: FileSample) -> tuple[str, ...]:
    """What is resampled as one: the samples of a prompt, or a file whose prompt all files share."""
    asked = sample.prompt
    own = (str(sample.media),) if sample.alone else ()
    return (asked.text, pictures_hash(asked.images) or "", asked.answer or "", *own)


def _resampled(samples: Sequence[FileSample]) -> str:
    if not any(sample.alone for sample in samples):
        return "prompts"
    return "files" if all(sample.alone for sample in samples) else "prompts and files"
