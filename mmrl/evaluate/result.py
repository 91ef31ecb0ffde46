"""The outcome of an evaluation as files: every sample, every metric by slice, and where from."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmrl.config import UserError
from mmrl.data.files import json_text
from mmrl.evaluate.answers import baselines, calibration, pass_at
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.row import Metric, Row
from mmrl.versions import versions as package_versions

FORMAT = 1
SLICE_KEYS = ("modality", "question_type", "action_type", "kind", "pair")
"""Metadata that results are always split by, where samples have it."""


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
        """Every score by slice, its baselines, pass@k where prompts have several 0/1 scores, and
        calibration."""
        found = []
        for where, rows in self.slices():
            for name in self.names():
                found.append(self._mean(name, where, rows))
                found += baselines(name, where, rows)
                found += pass_at(name, where, rows, self.level)
            found += calibration(where, rows)
        return found

    def _mean(self, name: str, where: str, rows: Sequence[Row]) -> Metric:
        values = [row.score(name) for row in rows]
        mean, low, high = bootstrap_ci(values, [row.group for row in rows], level=self.level)
        known = sum(map(math.isfinite, values))
        return Metric(name, where, mean, low, high, known, len(values) - known)

    def resampled(self) -> str:
        """What the intervals come from, in words: samples of one prompt move together."""
        what = self.subject.get("resampled", "prompts")
        units = len({row.group for row in self.rows})
        if units < 2:
            return f"no interval: there is one {str(what).removesuffix('s')} to resample"
        return f"{100 * self.level:g} % intervals by resampling {units} {what}"

    def failures(self) -> list[tuple[str, str, int]]:
        """Score, reason and count of what could not be scored, the commonest first."""
        found = Counter(pair for row in self.rows for pair in row.failures.items())
        return [(name, reason, count) for (name, reason), count in found.most_common()]


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
        "prompts": len({row.asked for row in result.rows}),
        "resampled": result.resampled(),
        "samples": len(result.rows),
        "metrics": [asdict(metric) for metric in metrics],
    }
    _write(folder / "samples.jsonl", "".join(json_text(asdict(r)) + "\n" for r in result.rows))
    _write(folder / "summary.csv", _csv(metrics))
    _write(folder / "summary.md", markdown(result, metrics))
    _write(folder / "report.json", json_text(report, 1) + "\n")


def read_result(folder: Path) -> Result:
    """What `write_result` wrote, with identical numbers; UserError names a file that is not it."""
    report, samples = folder / "report.json", folder / "samples.jsonl"
    if not report.is_file() and (inside := sorted(folder.glob("evaluations/*/report.json"))):
        named = ", ".join(str(path.parent) for path in inside)
        raise UserError(f"{folder} is a run: name one of its evaluations, {named}")
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
    lines += ["", f"{_sentence(result.resampled())}.", f"Subject: {_told(result.subject)}.", ""]
    lines += [f"* `{m.name}` of {m.slice} is {m.note}." for m in metrics if m.note]
    lines += [f"* no `{name}` for {count}: {why}." for name, why, count in result.failures()]
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


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _told(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items()) or "no fields"
