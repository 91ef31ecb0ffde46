"""One page about one run or several: what changed, samples, curves, config. It needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from mmrl.report.changes import LEVEL, Change, changes, level, number, signed
from mmrl.report.curves import band_words, machine_curves, reward_curves, trust_region_curves
from mmrl.report.gallery import gallery_html
from mmrl.report.plots import interval_plot
from mmrl.report.run import RunData, find_runs, read_run
from mmrl.report.slices import matrices_html, slices_html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page may show pictures it carries and nothing else: no script, no request."""
CLASSES = {"rose": "rose", "fell": "fell"}


def write_report(folder: Path, page: Path) -> None:
    """Write the page of a run folder, or of every run folder directly inside `folder`.

    UserError where there is no run, or a run without one finished step.
    """
    runs = [read_run(path) for path in find_runs(folder)]
    page.write_text(report_html(runs), encoding="utf-8")


def report_html(runs: Sequence[RunData]) -> str:
    """The whole page as text."""
    found = [changes(run) for run in runs]
    headline = headline_text(runs, found)
    pairs = list(zip(runs, found, strict=True))
    cards = "".join(_card(run, rows) for run, rows in pairs)
    body = [
        f'<header><p class="eyebrow">mmrl report</p><h1>{escape(headline)}</h1></header>',
        f'<div class="cards">{cards}</div>',
        _caution(runs, found),
        matrices_html(runs),
        *(_section(run, rows) for run, rows in pairs),
    ]
    style = files("mmrl.report").joinpath("style.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(headline)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def headline_text(runs: Sequence[RunData], found: Sequence[Sequence[Change]]) -> str:
    """One sentence: what the trained reward did on held-out prompts."""
    measured = [(run, rows[0]) for run, rows in zip(runs, found, strict=True) if rows]
    if not measured:
        names = ", ".join(run.name for run in runs)
        return f"{names}: {sum(len(run.steps) for run in runs)} training steps"
    if len(measured) == 1:
        run, row = measured[0]
        moved = f"{number(row.before.mean)} to {number(row.after.mean)}"
        if row.verdict not in CLASSES:
            return f"{run.name}: no clear change of held-out {row.name} ({moved})"
        return f"{run.name}: held-out {row.name} {row.verdict} from {moved}"
    rose = sum(row.verdict == "rose" for _, row in measured)
    return f"Held-out reward rose in {rose} of {len(measured)} runs"


def _card(run: RunData, rows: Sequence[Change]) -> str:
    shown = _measured(run, rows) if rows else _unmeasured(run)
    return (
        f'<a class="result" href="#{escape(run.name, quote=True)}">'
        f'<p class="eyebrow">{escape(_label(run))}</p>{shown}'
        f'<p class="quiet">{_effort(run)}</p></a>'
    )


def _measured(run: RunData, rows: Sequence[Change]) -> str:
    main, others = rows[0], rows[1:]
    parts = [
        f'<p class="big">{number(main.before.mean)} <span class="arrow">\u2192</span> '
        f"{number(main.after.mean)}</p>",
        f"<p>held-out {escape(main.name)} {_verdict(main)}",
        f" by {signed(main.difference)}" if main.difference else "",
        f'<br><span class="quiet">{level(run)} interval, n = {main.n}</span></p>',
    ]
    for role, watched in (("trained", False), ("watched, not trained", True)):
        told = [row for row in others if row.watched == watched]
        if told:
            items = "".join(
                f"<li>{escape(row.name)} {number(row.before.mean)} \u2192 "
                f"{number(row.after.mean)} {_verdict(row)}</li>"
                for row in told
            )
            parts.append(f'<p class="role">{role}</p><ul>{items}</ul>')
    return "".join(parts)


def _unmeasured(run: RunData) -> str:
    values = [v for v in run.column("reward/mean") if v is not None and math.isfinite(v)]
    if not values:
        return "<p>No step has a reward: see the failures below.</p>"
    size = max(1, len(values) // 10)
    first, last = sum(values[:size]) / size, sum(values[-size:]) / size
    return (
        f'<p class="big">{number(first)} <span class="arrow">\u2192</span> {number(last)}</p>'
        f"<p>training reward, mean of the first and of the last {size} "
        f"step{'s' if size > 1 else ''}<br>"
        '<span class="quiet">Not a held-out comparison: this run has no evaluation before and '
        "after.</span></p>"
    )


def _caution(runs: Sequence[RunData], found: Sequence[Sequence[Change]]) -> str:
    if not any(found):
        return ""
    return (
        '<p class="caution">Before and after use the same held-out prompts and seeds. '
        f"The {level(runs[0])} intervals come from resampling prompts; a metric is said to rise or "
        "fall only where the interval of its change leaves out 0 and p, corrected over the metrics "
        f"of its run (Holm), is at most {1 - runs[0].evaluation.get('level', LEVEL):.2g}. "
        "Intervals do not cover the chance of training itself: each run is one seed.</p>"
    )


def _section(run: RunData, rows: Sequence[Change]) -> str:
    parts = [f'<section id="{escape(run.name, quote=True)}"><h2>{escape(_label(run))}</h2>']
    if rows:
        plots = _grid([_intervals(run, row) for row in rows], "small")
        parts.append(f"<h3>Held-out metrics</h3>{_table(run, rows)}{plots}{slices_html(run)}")
    shown = gallery_html(run.folder)
    if shown:
        why = (
            "Held-out prompts, evenly spaced through the evaluation; none was picked by its score."
        )
        parts.append(f'<h3>Samples before and after</h3><p class="quiet">{why}</p>{shown}')
    parts.append(f'<h3>Rewards during training</h3><p class="quiet">{band_words(run)}</p>')
    parts.append(_grid(reward_curves(run)))
    trust = trust_region_curves(run)
    if trust:
        parts.append(f"<h3>Trust region</h3>{_grid(trust)}")
    parts.append(f"<h3>Failures</h3>{_failures(run)}")
    machine = machine_curves(run)
    if machine:
        parts.append(_details("Optimizer and time", _grid(machine)))
    if run.config_text:
        parts.append(_details("Resolved config", f"<pre>{escape(run.config_text)}</pre>"))
    if run.versions:
        told = "\n".join(f"{name} {version}" for name, version in run.versions.items())
        parts.append(_details("Versions", f"<pre>{escape(told)}</pre>"))
    return "".join([*parts, "</section>"])


def _table(run: RunData, rows: Sequence[Change]) -> str:
    head = "".join(
        f'<th scope="col"{mark}>{name}</th>'
        for name, mark in [
            ("metric", ""),
            ("role", ""),
            *((name, ' class="number"') for name in ("before", "after", "change", "p", "n")),
            ("", ""),
        ]
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row.name)}</th>'
        f"<td>{'watched' if row.watched else 'trained'}</td>"
        f'<td class="number">{row.before}</td><td class="number">{row.after}</td>'
        f'<td class="number">{signed(row.difference) if row.difference else ""}</td>'
        f'<td class="number">{f"{row.paired.p_value:.4f}" if row.paired else ""}</td>'
        f'<td class="number">{row.n}</td><td>{_verdict(row)}</td></tr>'
        for row in rows
    )
    note = f"Means with {level(run)} intervals."
    return (
        f'<div class="scroll"><table><caption>{note}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _intervals(run: RunData, row: Change) -> str:
    rows = [
        ("before", row.before.mean, row.before.low, row.before.high),
        ("after", row.after.mean, row.after.low, row.after.high),
    ]
    return interval_plot(row.name, rows, "watched only" if row.watched else "")


def _failures(run: RunData) -> str:
    missing = {
        key.removeprefix("reward/").removesuffix("/missing"): sum(
            value or 0 for value in run.column(key)
        )
        for key in run.keys("reward/", "/missing")
    }
    if not missing:
        return '<p class="quiet">No reward recorded whether its samples could be scored.</p>'
    failed = [f"{escape(name)} {count:g}" for name, count in sorted(missing.items()) if count]
    if not failed:
        return '<p class="quiet">Every reward could score every training sample.</p>'
    return f"<p>Training samples that could not be scored: {', '.join(failed)}.</p>"


def _verdict(row: Change) -> str:
    return f'<b class="{CLASSES.get(row.verdict, "quiet")}">{row.verdict}</b>'


def _label(run: RunData) -> str:
    return f"{run.name} \u00b7 {run.pipeline}" if run.pipeline else run.name


def _effort(run: RunData) -> str:
    minutes, seconds = divmod(round(run.seconds()), 60)
    took = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    count = len(run.steps)
    return f"{count} training step{'s' if count > 1 else ''}, {took}"


def _grid(plots: Sequence[str], kind: str = "") -> str:
    return f'<div class="plots {kind}">{"".join(plots)}</div>'


def _details(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"
