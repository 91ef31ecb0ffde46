"""An evaluation taken apart: by modality and question type, by confidence, and across runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from mmrl.evaluate.answers import confidences
from mmrl.evaluate.calibration import Bin, expected_calibration_error, reliability
from mmrl.evaluate.generalization import Matrix, matrices
from mmrl.evaluate.result import Result, read_result
from mmrl.evaluate.row import Metric
from mmrl.report.changes import number
from mmrl.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, axes, figure
from mmrl.report.run import RunData

WHEN = ("before", "after")
MIN_RADIUS, MAX_RADIUS = 2.0, 9.0


def results(run: RunData) -> dict[str, Result]:
    """The run's full evaluations before and after, where it kept them."""
    folders = {when: run.folder / "evaluations" / when for when in WHEN}
    return {w: read_result(f) for w, f in folders.items() if (f / "report.json").is_file()}


def slices_html(run: RunData) -> str:
    """A table by slice and the reliability of stated confidence; empty where there is neither."""
    found = results(run)
    parts = [_slice_table(found)]
    figures = [reliability_plot(f"confidence, {when}", one) for when, one in found.items()]
    if any(figures):
        note = "Answers by stated confidence: on the diagonal it means what it says."
        parts.append(f'<h3>Calibration</h3><p class="quiet">{note}</p>')
        parts.append(f'<div class="plots small">{"".join(figures)}</div>')
    return "".join(parts)


def matrices_html(runs: Sequence[RunData]) -> str:
    """Heat maps of runs against modalities and question types; empty for a single run."""
    found = {run.name: results(run).get("after") for run in runs}
    known = {name: result for name, result in found.items() if result is not None}
    if len(known) < 2:
        return ""
    tables = "".join(_heat_map(matrix) for matrix in matrices(known))
    return (
        f'<section id="generalization"><h2>Runs by slice</h2>{tables}</section>' if tables else ""
    )


def reliability_plot(title: str, result: Result) -> str:
    """Accuracy over confidence, a dot a bin, its area by count; empty without confidences."""
    stated, right = confidences(result.rows)
    if not stated:
        return ""
    bins = reliability(stated, right)
    x, y = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT), Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    diagonal = f'<line class="axis" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>'
    largest = max(one.count for one in bins)
    dots = [_dot(one, x, y, largest) for one in bins]
    error = expected_calibration_error(stated, right)
    label = f"{title}: expected calibration error {error:.3f} over {len(stated)} answers"
    grid = axes(x, y, "confidence", whole=False)
    return figure(title, f"ECE {error:.3f}", label, [grid, diagonal, *dots], HEIGHT, "")


def _dot(one: Bin, x: Scale, y: Scale, largest: int) -> str:
    radius = max(MIN_RADIUS, MAX_RADIUS * math.sqrt(one.count / largest))
    told = f"{one.count} answers: confidence {one.confidence:.2f}, right {one.accuracy:.2f}"
    return (
        f'<circle cx="{x(one.confidence)}" cy="{y(one.accuracy)}" r="{radius:.1f}" '
        f'style="--c:var(--series-0)"><title>{told}</title></circle>'
    )


def _slice_table(found: Mapping[str, Result]) -> str:
    tables = {when: {(m.slice, m.name): m for m in one.metrics()} for when, one in found.items()}
    keys = list(dict.fromkeys(key for table in tables.values() for key in table if key[0] != "all"))
    if not keys:
        return ""
    head = "".join(f'<th scope="col" class="number">{when}</th>' for when in found)
    rows = "".join(
        f'<tr><th scope="row">{escape(where)}</th><td>{escape(name)}</td>'
        + "".join(_cell(table.get((where, name))) for table in tables.values())
        + "</tr>"
        for where, name in keys
    )
    return (
        '<h3>By slice</h3><div class="scroll"><table><thead><tr><th scope="col">slice</th>'
        f'<th scope="col">metric</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "<td></td>"
    interval = (
        f" [{number(metric.low)}, {number(metric.high)}]" if math.isfinite(metric.low) else ""
    )
    return f'<td class="number">{number(metric.mean)}{interval}, n = {metric.n}</td>'


def _heat_map(matrix: Matrix) -> str:
    known = [cell for row in matrix.cells for cell in row if math.isfinite(cell)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    complete = not matrix.missing()
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in matrix.columns)
    means: Sequence[float | None] = matrix.row_means() if complete else [None] * len(matrix.rows)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_heat(cell, low, high) for cell in cells)
        + _mean_cell(mean)
        + "</tr>"
        for name, cells, mean in zip(matrix.rows, matrix.cells, means, strict=True)
    )
    caption = f"{matrix.metric} after training, by {matrix.key.replace('_', ' ')}: {matrix.told()}"
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>'
        f'<th scope="col">run</th>{head}<th scope="col" class="number">mean</th></tr></thead>'
        f"<tbody>{rows}{_last_row(matrix) if complete else ''}</tbody></table></div>"
    )


def _last_row(matrix: Matrix) -> str:
    means = "".join(map(_mean_cell, [*matrix.column_means(), matrix.overall()]))
    return f'<tr><th scope="row">mean</th>{means}</tr>'


def _mean_cell(mean: float | None) -> str:
    return "<td></td>" if mean is None else f'<td class="number">{number(mean)}</td>'


def _heat(cell: float, low: float, high: float) -> str:
    if not math.isfinite(cell):
        return "<td></td>"
    share = (cell - low) / (high - low) if high > low else 0.5
    return f'<td class="heat" style="--share:{share:.3f}">{number(cell)}</td>'
