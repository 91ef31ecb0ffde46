"""One page about one run or several: curves, intervals, gallery, config. It needs no network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmrl.config import UserError
from mmrl.report.gallery import gallery_html
from mmrl.report.plots import Series, interval_plot, line_plot

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page may show pictures it carries and nothing else: no script, no request."""


@dataclass(frozen=True)
class RunData:
    """What a run folder holds, read once."""

    folder: Path
    steps: list[dict[str, Any]]
    evaluation: dict[str, Any]
    config: str
    versions: dict[str, str]

    @property
    def name(self) -> str:
        """The pipeline's name, or the folder's."""
        first = self.config.split("\n", 1)[0]
        return first.removeprefix("pipeline: ") if first.startswith("pipeline:") else self.folder.name


def write_report(folder: Path, page: Path) -> None:
    """Write the page of a run folder, or of every run folder inside `folder`.

    UserError where there is no run.
    """
    runs = [read_run(path) for path in find_runs(folder)]
    title = " and ".join(run.name for run in runs)
    body = [f"<h1>{escape(title)}</h1>", *(_lead(run) for run in runs)]
    body += [_section(run) for run in runs]
    style = files("mmrl.report").joinpath("style.css").read_text("utf-8")
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}: report</title><style>{style}</style></head>"
        f"<body>{''.join(body)}</body></html>",
        encoding="utf-8",
    )


def find_runs(folder: Path) -> list[Path]:
    """`folder` itself where it is a run, else the runs directly inside it."""
    if (folder / "metrics.jsonl").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    if not inside:
        raise UserError(f"{folder}: no metrics.jsonl here or one folder below; train a run first")
    return inside


def read_run(folder: Path) -> RunData:
    """The run's files; UserError where no step was finished."""
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    steps = [json.loads(line) for line in lines if line.strip()]
    if not steps:
        raise UserError(f"{folder}/metrics.jsonl is empty: no step was finished")
    return RunData(
        folder,
        steps,
        json.loads(_text(folder / "evaluation.json") or "{}"),
        _text(folder / "config.yaml"),
        json.loads(_text(folder / "versions.json") or "{}"),
    )


def _lead(run: RunData) -> str:
    before, after = run.evaluation.get("before"), run.evaluation.get("after")
    if not before or not after:
        return f'<p class="lead"><b>{escape(run.name)}</b>: {len(run.steps)} steps.</p>'
    names = [run.evaluation.get("trained", "reward")]
    names += [name for name in ("accuracy",) if name in after]
    told = []
    for name in names:
        was, now = before[name], after[name]
        apart = was["high"] < now["low"] or now["high"] < was["low"]
        words = "intervals apart" if apart else "intervals overlap"
        told.append(
            f"held-out {escape(name)} went from {_interval(was)} to {_interval(now)} "
            f"(n = {now['n']}, {words})"
        )
    return f'<p class="lead"><b>{escape(run.name)}</b>: {"; ".join(told)}.</p>'


def _section(run: RunData) -> str:
    plots = [plot for plot in _plots(run) if plot]
    parts = [f"<h2>{escape(run.name)}</h2>", f'<div class="plots">{"".join(plots)}</div>']
    if run.evaluation.get("before"):
        parts.append(f"<h3>Held-out metrics</h3>{_table(run)}")
    shown = gallery_html(run.folder)
    if shown:
        parts.append(f"<h3>Held-out samples before and after</h3>{shown}")
    parts.append(_failures(run))
    parts.append(_details("Resolved config", run.config))
    known = "\n".join(f"{name} {version}" for name, version in run.versions.items())
    parts.append(_details("Versions", known))
    return "".join(parts)


def _plots(run: RunData) -> list[str]:
    names = _keys(run, "rewards/", "/mean")
    rewards = [_series(run, f"rewards/{n}/mean", n, f"rewards/{n}/std") for n in names]
    kls = [_series(run, key, key.removeprefix("kl/")) for key in _keys(run, "kl/")]
    strength = [
        _series(run, key, key.removeprefix("coefficient/")) for key in _keys(run, "coefficient/")
    ]
    return [
        line_plot("Trained reward, mean and spread", [_series(run, "reward/mean", "reward", "reward/std")]),
        *(line_plot(f"{one.name}, mean and spread", [one]) for one in rewards),
        line_plot("KL to each anchor", kls),
        line_plot("KL coefficient", strength),
        line_plot("Clipped share of decisions", [_series(run, "clip_fraction", "clipped")]),
        line_plot("Gradient norm", [_series(run, "grad_norm", "norm")]),
        *_interval_plots(run),
    ]


def _interval_plots(run: RunData) -> list[str]:
    found = run.evaluation
    if not found.get("before") or not found.get("after"):
        return []
    name = found.get("trained", "reward")
    rows = [(when, *_three(found[when][name])) for when in ("before", "after")]
    return [interval_plot(f"Held-out {name}, 95 % interval", rows)]


def _table(run: RunData) -> str:
    before, after = run.evaluation["before"], run.evaluation.get("after", {})
    watched = set(run.evaluation.get("watched", ()))
    rows = []
    for name in sorted(before, key=lambda n: (n != "reward", n in watched, n)):
        role = "watched" if name in watched else "trained"
        cells = [f"<td>{escape(name)}</td><td>{role}</td>"]
        for found in (before.get(name), after.get(name)):
            cells.append(f'<td class="number">{_interval(found) if found else ""}</td>')
        cells.append(f'<td class="number">{(after.get(name) or before[name])["n"]}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "<tr><th>metric</th><th>role</th><th>before</th><th>after</th><th>n</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _failures(run: RunData) -> str:
    missing = {
        key.split("/")[1]: sum(step.get(key) or 0 for step in run.steps)
        for key in _keys(run, "reward/", "/missing")
    }
    told = ", ".join(f"{escape(name)} {count:g}" for name, count in sorted(missing.items()))
    return f'<p class="quiet">Samples that could not be scored: {told}.</p>' if told else ""


def _series(run: RunData, key: str, name: str, spread: str | None = None) -> Series:
    steps = [step["step"] for step in run.steps]
    around = [step.get(spread) for step in run.steps] if spread else None
    return Series(name, steps, [step.get(key) for step in run.steps], around)


def _keys(run: RunData, prefix: str, suffix: str = "") -> list[str]:
    """Names of the metrics between prefix and suffix; whole keys where there is no suffix."""
    found = {key for step in run.steps for key in step}
    chosen = sorted(key for key in found if key.startswith(prefix) and key.endswith(suffix))
    if suffix == "/mean":
        return [key.removeprefix(prefix).removesuffix(suffix) for key in chosen]
    return chosen


def _three(found: dict[str, Any]) -> tuple[float, float, float]:
    values: Sequence[float | None] = (found["mean"], found["low"], found["high"])
    mean, low, high = (math.nan if value is None else float(value) for value in values)
    return mean, low, high


def _interval(found: dict[str, Any]) -> str:
    mean, low, high = _three(found)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _details(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>" if text else ""


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
