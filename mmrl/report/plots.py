"""Line and interval plots as inline SVG: no dependency, no script, colours from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 350, 214
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 12, 40
PALETTE_SIZE = 6
"""The page defines --series-0 .. --series-5 (Okabe and Ito's colours)."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
"""A second cue beside colour, so that lines differ in print and for every eye."""
MAX_POINTS = 400
MAX_HOVERS = 100


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


def line_plot(title: str, series: Sequence[Series], note: str = "") -> str:
    """Values over steps as a figure; a step without a value leaves a gap. Empty without values."""
    shown = [thin(one) for one in series]
    shown = [one for one in shown if any(known(value) for value in one.values)]
    if not shown:
        return ""
    x = Scale(*_steps_range([s for one in shown for s in one.steps]), LEFT, WIDTH - RIGHT)
    y = Scale(*_padded([e for one in shown for e in _edges(one)]), HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y)]
    parts += [_band(one, x, y, index) for index, one in enumerate(shown)]
    parts += [_line(one, x, y, index) for index, one in enumerate(shown)]
    parts.append(_hovers(shown, x))
    legend = _legend([one.name for one in shown]) if len(shown) > 1 else ""
    label = f"{title}: {'; '.join(_told(one) for one in shown)}"
    return figure(title, note, label, parts, HEIGHT, legend)


def interval_plot(
    title: str, rows: Sequence[tuple[str, float, float, float]], note: str = ""
) -> str:
    """Means with whiskers, one below the other: (name, mean, low, high). Empty without numbers."""
    rows = [row for row in rows if all(math.isfinite(value) for value in row[1:])]
    if not rows:
        return ""
    bottom = 14 + 30 * len(rows)
    x = Scale(*_padded([value for row in rows for value in row[1:]]), 60, WIDTH - 56)
    parts = [
        f'<line class="grid" x1="{x(v)}" x2="{x(v)}" y1="6" y2="{bottom}"/>'
        f'<text x="{x(v)}" y="{bottom + 16}" text-anchor="middle">{_tick(v)}</text>'
        for v in ticks(x.low, x.high, 3)
    ]
    parts += [_whisker(row, x, 22 + 30 * index, index) for index, row in enumerate(rows)]
    told = "; ".join(f"{name} {mean:.4g} [{low:.4g}, {high:.4g}]" for name, mean, low, high in rows)
    return figure(title, note, f"{title}: {told}", parts, bottom + 24, "")


def ticks(low: float, high: float, count: int = 4, *, whole: bool = False) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside the range; integers if `whole`."""
    raw = max((high - low) / count, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def thin(one: Series, limit: int = MAX_POINTS) -> Series:
    """Means over equal runs of steps where there are more than `limit` of them."""
    size = -(-len(one.steps) // limit)
    if size <= 1:
        return one
    parts = [slice(start, start + size) for start in range(0, len(one.steps), size)]
    spread = None if one.spread is None else [_mean(one.spread[part]) for part in parts]
    steps = [one.steps[part][-1] for part in parts]
    return Series(one.name, steps, [_mean(one.values[part]) for part in parts], spread)


def known(value: float | None) -> bool:
    """Whether there is a finite number to draw."""
    return value is not None and math.isfinite(value)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None and math.isfinite(value)]
    return sum(found) / len(found) if found else None


def _rows(one: Series) -> list[tuple[float, float | None, float]]:
    """(step, value or None, spread or 0) of every point."""
    spread = one.spread or [None] * len(one.values)
    return [
        (s, v if known(v) else None, d if d is not None and math.isfinite(d) else 0.0)
        for s, v, d in zip(one.steps, one.values, spread, strict=True)
    ]


def _edges(one: Series) -> list[float]:
    return [edge for _, v, d in _rows(one) if v is not None for edge in (v - d, v + d)]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The values' range with a margin; around a constant 5 % of it, around 0 from -1 to 1."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def _steps_range(steps: Sequence[float]) -> tuple[float, float]:
    low, high = min(steps), max(steps)
    return (low, high) if high > low else (low - 1, high + 1)


def axes(x: Scale, y: Scale, name: str = "step", *, whole: bool = True) -> str:
    """Grid lines with their values, and what lies along x."""
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}"/>'
            f'<text x="{LEFT - 7}" y="{y(value) + 4}" text-anchor="end">{_tick(value)}</text>'
        )
    bottom = HEIGHT - BOTTOM
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    )
    for value in ticks(x.low, x.high, 5, whole=whole):
        parts.append(
            f'<text x="{x(value)}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{name}</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    """Short enough for the margin: 0.00031 and 250000 are told as 3.1e-4 and 2.5e5."""
    text = f"{value:g}"
    if len(text.lstrip("-")) <= 6 and "e" not in text:
        return text
    mantissa, exponent = f"{value:.4e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _line(one: Series, x: Scale, y: Scale, index: int) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for step, value, _ in _rows(one):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((x(step), y(value)))
    colour = _colour(index)
    parts = []
    for run in runs:
        points = " ".join(f"{a},{b}" for a, b in run)
        if len(run) > 1:
            parts.append(
                f'<polyline class="line" style="{colour}" {_dash(index)} points="{points}"/>'
            )
        elif run:
            parts.append(f'<circle style="{colour}" cx="{run[0][0]}" cy="{run[0][1]}" r="2.5"/>')
    return "".join(parts)


def _band(one: Series, x: Scale, y: Scale, index: int) -> str:
    rows = [(s, v, d) for s, v, d in _rows(one) if v is not None]
    if one.spread is None or len(rows) < 2:
        return ""
    upper = [f"{x(s)},{y(v + d)}" for s, v, d in rows]
    lower = [f"{x(s)},{y(v - d)}" for s, v, d in reversed(rows)]
    return f'<polygon class="band" style="{_colour(index)}" points="{" ".join(upper + lower)}"/>'


def _hovers(series: Sequence[Series], x: Scale) -> str:
    """Invisible columns that tell the values of a step when pointed at."""
    told: dict[float, list[str]] = {}
    for one in series:
        for step, value, spread in _rows(one):
            if value is not None:
                around = f" \u00b1 {spread:.3g}" if spread else ""
                told.setdefault(step, []).append(f"{one.name} {value:.4g}{around}")
    steps = sorted(told)[:: -(-len(told) // MAX_HOVERS)]
    width = round((x.end - x.start) / len(steps), 2)
    return "".join(
        f'<rect class="hover" x="{round(x(step) - width / 2, 2)}" y="{TOP}" width="{width}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>step {step:g}: '
        f"{escape(', '.join(told[step]))}</title></rect>"
        for step in steps
    )


def _whisker(row: tuple[str, float, float, float], x: Scale, middle: int, index: int) -> str:
    name, mean, low, high = row
    caps = "".join(
        f'<line class="line" x1="{x(v)}" x2="{x(v)}" y1="{middle - 5}" y2="{middle + 5}"/>'
        for v in (low, high)
    )
    return (
        f'<text class="name" x="54" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
        f'<g style="{_colour(index)}"><title>{mean:.4g} [{low:.4g}, {high:.4g}]</title>'
        f'<line class="line" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>{caps}'
        f'<circle cx="{x(mean)}" cy="{middle}" r="5"/></g>'
        f'<text class="name" x="{x(high) + 10}" y="{middle + 4}">{mean:.3g}</text>'
    )


def _told(one: Series) -> str:
    found = [(s, v) for s, v, _ in _rows(one) if v is not None]
    (first, old), (last, new) = found[0], found[-1]
    return f"{one.name} from {old:.4g} at step {first:g} to {new:.4g} at step {last:g}"


def _colour(index: int) -> str:
    return f"--c:var(--series-{index % PALETTE_SIZE})"


def _dash(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    return f'stroke-dasharray="{dash}"' if dash else ""


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<span><svg width="26" height="8" aria-hidden="true"><line class="line" x1="0" x2="26" '
        f'y1="4" y2="4" style="{_colour(index)}" {_dash(index)}/></svg>{escape(name)}</span>'
        for index, name in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'


def figure(
    title: str, note: str, label: str, parts: Sequence[str], height: int, legend: str
) -> str:
    """A drawing with its caption, its words for who cannot see it, and its legend."""
    small = f" <small>{escape(note)}</small>" if note else ""
    return (
        f'<figure class="plot"><figcaption>{escape(title)}{small}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>{legend}</figure>"
    )
