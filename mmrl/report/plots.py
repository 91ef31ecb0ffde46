"""Line and interval plots as inline SVG: no dependency, no script, colours from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 34
PALETTE_SIZE = 6
"""The page defines --series-0 .. --series-5."""


@dataclass(frozen=True)
class Series:
    """One line, with a band of +- `spread` around it where one is known."""

    name: str
    steps: Sequence[float]
    values: Sequence[float | None]
    spread: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Scale:
    """Linear map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def line_plot(title: str, series: Sequence[Series]) -> str:
    """Values over steps; a step without a value leaves a gap."""
    points = [(s, v) for one in series for s, v in zip(one.steps, one.values, strict=True)]
    known = [(s, v) for s, v in points if v is not None and math.isfinite(v)]
    if not known:
        return ""
    edges = [edge for one in series for edge in _edges(one)]
    x = Scale(*_range([s for s, _ in known]), LEFT, WIDTH - RIGHT)
    y = Scale(*_range(edges), HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y)]
    for index, one in enumerate(series):
        parts.append(_band(one, x, y, index))
        parts.append(_line(one, x, y, index))
    return _figure(title, parts, [one.name for one in series])


def interval_plot(title: str, rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Means with intervals, one below the other: (name, mean, low, high)."""
    known = [row for row in rows if all(math.isfinite(value) for value in row[1:])]
    if not known:
        return ""
    height = 30 + 34 * len(known)
    x = Scale(*_range([value for row in known for value in row[1:]]), 110, WIDTH - 70)
    parts = []
    for index, (name, mean, low, high) in enumerate(known):
        middle = 24 + 34 * index
        colour = f"var(--series-{index % PALETTE_SIZE})"
        parts += [
            f'<text x="100" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" '
            f'stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(mean)}" cy="{middle}" r="5" fill="{colour}">'
            f"<title>{mean:.4g} [{low:.4g}, {high:.4g}]</title></circle>",
            f'<text x="{x(high) + 8}" y="{middle + 4}">{mean:.3g}</text>',
        ]
    return _wrap(title, parts, height)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that cover the range."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _edges(one: Series) -> list[float]:
    spread = one.spread or [0.0] * len(one.values)
    pairs = [(v, s or 0.0) for v, s in zip(one.values, spread, strict=True) if v is not None]
    return [edge for v, s in pairs for edge in (v - s, v + s) if math.isfinite(edge)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or max(abs(high), 1e-6) * 0.05
    return low - pad, high + pad


def _axes(x: Scale, y: Scale) -> str:
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}"/>'
            f'<text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>'
        )
    for value in ticks(x.low, x.high, 5):
        parts.append(
            f'<text x="{x(value)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        )
    return "".join(parts)


def _line(one: Series, x: Scale, y: Scale, index: int) -> str:
    runs: list[list[str]] = [[]]
    for step, value in zip(one.steps, one.values, strict=True):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append(f"{x(step)},{y(value)}")
    colour = f"var(--series-{index % PALETTE_SIZE})"
    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(run)}"/>'
        for run in runs
        if len(run) > 1
    ]
    dots = [
        f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="2.5" fill="{colour}"/>'
        for run in runs
        if len(run) == 1
        for point in run
    ]
    return "".join(lines + dots)


def _band(one: Series, x: Scale, y: Scale, index: int) -> str:
    if one.spread is None:
        return ""
    rows = [
        (step, value, spread)
        for step, value, spread in zip(one.steps, one.values, one.spread, strict=True)
        if value is not None and spread is not None
    ]
    upper = [f"{x(s)},{y(v + d)}" for s, v, d in rows]
    lower = [f"{x(s)},{y(v - d)}" for s, v, d in reversed(rows)]
    colour = f"var(--series-{index % PALETTE_SIZE})"
    return f'<polygon fill="{colour}" opacity="0.16" points="{" ".join(upper + lower)}"/>'


def _figure(title: str, parts: Sequence[str], names: Sequence[str]) -> str:
    legend = "".join(
        f'<span><i style="background:var(--series-{i % PALETTE_SIZE})"></i>{escape(name)}</span>'
        for i, name in enumerate(names)
    )
    caption = f'<div class="legend">{legend}</div>' if len(names) > 1 else ""
    return _wrap(title, parts, HEIGHT, caption)


def _wrap(title: str, parts: Sequence[str], height: int, caption: str = "") -> str:
    label = escape(title, quote=True)
    return (
        f'<figure class="plot"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>{caption}</figure>"
    )
