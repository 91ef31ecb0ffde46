"""The outcome of an evaluation as files: every sample, every metric by slice, and where from."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmrl.config import UserError
from mmrl.evaluate.calibration import brier, expected_calibration_error
from mmrl.evaluate.metrics import bootstrap_ci, pass_at_k
from mmrl.versions import versions as package_versions

FORMAT = 1
SLICE_KEYS = ("modality", "question_type", "action_type", "kind", "pair")
"""Metadata that results are always split by, where samples have it."""
CORRECT = ("accuracy", "multiple_choice")
"""Metrics that say whether an answer is right: a stated confidence is judged against them."""


@dataclass(frozen=True)
class Row:
    """One sample and its scores; None: could not be scored."""

    prompt: str
    group: int
    """Samples of one prompt share it, and are resampled together."""
    seed: int | None
    scores: Mapping[str, float | None]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    answer: str | None = None
    media: str | None = None
    sha256: str | None = None
    confidence: float | None = None
    """The model's own probability of being right, in [0, 1]."""

    def score(self, name: str) -> float:
        """One score as a number; NaN: could not be scored."""
        value = self.scores.get(name)
        return math.nan if value is None else float(value)


@dataclass(frozen=True)
class Metric:
    """Mean of one score over one slice, with its interval over prompts."""

    name: str
    slice: str
    mean: float
    low: float
    high: float
    n: int
    missing: int
    """Samples that could not be scored."""


@dataclass(frozen=True)
class Result:
    """One evaluation: what was scored, by what, sample by sample."""

    subject: Mapping[str, Any]
    """Name and hash of the model or the files."""
    scorers: Mapping[str, Mapping[str, Any]]
    """Fields and origin of every reward: model, frame rule, scale, hash of the weights."""
    rows: Sequence[Row]
    versions: Mapping[str, str] = field(default_factory=package_versions)
    level: float = 0.95

    def names(self) -> list[str]:
        """Scores in the order they were asked for."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    def slices(self) -> Iterator[tuple[str, list[Row]]]:
        """All rows, then the rows of each value of the metadata that results are split by."""
        yield "all", list(self.rows)
        for key in SLICE_KEYS:
            values = sorted({str(row.metadata[key]) for row in self.rows if key in row.metadata})
            for value in values if len(values) > 1 else ():
                yield f"{key}={value}", [r for r in self.rows if str(r.metadata.get(key)) == value]

    def metrics(self) -> list[Metric]:
        """Every score by slice, pass@k where prompts have several 0/1 scores, and calibration."""
        found = []
        for where, rows in self.slices():
            for name in self.names():
                found.append(self._mean(name, where, rows))
                found += self._pass_at(name, where, rows)
            found += self._calibration(where, rows)
        return found

    def _mean(self, name: str, where: str, rows: Sequence[Row]) -> Metric:
        values = [row.score(name) for row in rows]
        mean, low, high = bootstrap_ci(values, [row.group for row in rows], level=self.level)
        known = sum(map(math.isfinite, values))
        return Metric(name, where, mean, low, high, known, len(values) - known)

    def _pass_at(self, name: str, where: str, rows: Sequence[Row]) -> list[Metric]:
        tasks: dict[int, list[float]] = {}
        for row in rows:
            score = row.scores.get(name)
            if score is not None:
                tasks.setdefault(row.group, []).append(score)
        if not tasks or {x for task in tasks.values() for x in task} - {0.0, 1.0}:
            return []
        smallest = min(map(len, tasks.values()))
        found = []
        for k in (k for k in (1, 2, 4, 8, 16, 32, 64) if smallest > 1 and k <= smallest):
            values = [pass_at_k(len(task), int(sum(task)), k) for task in tasks.values()]
            estimate = bootstrap_ci(values, level=self.level)
            found.append(Metric(f"{name}/pass@{k}", where, *estimate, len(values), 0))
        return found

    def _calibration(self, where: str, rows: Sequence[Row]) -> list[Metric]:
        stated, right = confidences(rows)
        if not stated:
            return []
        values = {
            "calibration/ece": expected_calibration_error(stated, right),
            "calibration/brier": brier(stated, right),
        }
        missing = len(rows) - len(stated)
        return [
            Metric(name, where, value, math.nan, math.nan, len(stated), missing)
            for name, value in values.items()
        ]


def confidences(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Stated confidences and whether the answers were right, of the rows that have both."""
    pairs = [
        (row.confidence, next((row.scores[n] for n in CORRECT if n in row.scores), None))
        for row in rows
    ]
    known = [(p, hit) for p, hit in pairs if p is not None and hit is not None]
    return [p for p, _ in known], [hit for _, hit in known]


def write_result(folder: Path, result: Result) -> None:
    """report.json, samples.jsonl, summary.csv and summary.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = result.metrics()
    report = {
        "format": FORMAT,
        "subject": result.subject,
        "scorers": result.scorers,
        "versions": result.versions,
        "level": result.level,
        "prompts": len({row.group for row in result.rows}),
        "samples": len(result.rows),
        "metrics": [_plain(asdict(metric)) for metric in metrics],
    }
    _write(folder / "samples.jsonl", "".join(json.dumps(asdict(r)) + "\n" for r in result.rows))
    _write(folder / "summary.csv", _csv(metrics))
    _write(folder / "summary.md", markdown(result, metrics))
    _write(folder / "report.json", json.dumps(report, indent=1) + "\n")


def read_result(folder: Path) -> Result:
    """What `write_result` wrote, with identical numbers; UserError names a file that is not it."""
    report, samples = folder / "report.json", folder / "samples.jsonl"
    for path in (report, samples):
        if not path.is_file():
            raise UserError(f"{folder} holds no {path.name}; `mmrl eval` or `mmrl score` writes it")
    try:
        tree = json.loads(report.read_text("utf-8"))
        rows = [Row(**json.loads(line)) for line in samples.read_text("utf-8").splitlines()]
    except (json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{folder}: not the files of an evaluation: {error}") from error
    if tree.get("format") != FORMAT:
        raise UserError(f"{report}: format {tree.get('format')!r}, this version reads {FORMAT}")
    return Result(tree["subject"], tree["scorers"], rows, tree["versions"], tree["level"])


def markdown(result: Result, metrics: Sequence[Metric]) -> str:
    """A table of metrics, and below it what a reader needs to trust it."""
    lines = [
        f"| metric | slice | mean | {100 * result.level:g} % interval | n | missing |",
        "|---|---|---|---|---|---|",
    ]
    for m in metrics:
        interval = f"[{m.low:.4f}, {m.high:.4f}]" if math.isfinite(m.low) else ""
        lines.append(f"| {m.name} | {m.slice} | {m.mean:.4f} | {interval} | {m.n} | {m.missing} |")
    lines += ["", f"Subject: {_told(result.subject)}.", ""]
    lines += [f"* `{name}`: {_told(fields)}." for name, fields in result.scorers.items()]
    lines += ["", f"Versions: {_told(result.versions)}.", ""]
    return "\n".join(lines)


def _csv(metrics: Sequence[Metric]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(Metric.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(metric) for metric in metrics)
    return sink.getvalue()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _plain(tree: dict[str, Any]) -> dict[str, Any]:
    """NaN is no JSON: null stands for it."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in tree.items()}


def _told(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items()) or "no fields"
