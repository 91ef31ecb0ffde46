"""The report's line plot as an SVG file of its own, for pages that bring no style sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mmrl.report.plots import DASHES, WIDTH, Series, line_plot

COLOURS = ("#0072b2", "#c65500", "#008a67", "#b0568e", "#8f6500", "#3a9bd0")
STYLE = (
    "text{font:13px sans-serif;fill:#5d646d}.title{font-weight:600;fill:#1f2328}"
    ".grid{stroke:#e2dfd8}.axis{stroke:#b9b5ac}.line{stroke:var(--c);stroke-width:2;fill:none}"
    ".band{fill:var(--c);opacity:.17}circle{fill:var(--c)}.hover{fill:transparent}"
)
HEAD, ROW = 26, 18


def save_lines(path: Path, title: str, series: Sequence[Series], x_name: str = "step") -> None:
    """Write one plot with its title above and its legend below."""
    inner = re.search(r"<svg viewBox=\"0 0 \d+ (\d+)\"[^>]*>(.*?)</svg>", line_plot(title, series))
    assert inner is not None, "nothing to draw"
    height, drawn = int(inner[1]), inner[2].replace(">step</text>", f">{escape(x_name)}</text>")
    legend = "".join(_entry(one.name, index, height + HEAD) for index, one in enumerate(series))
    whole = height + HEAD + ROW * len(series) + 8
    colours = "".join(f"--series-{index}:{colour};" for index, colour in enumerate(COLOURS))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {WIDTH} {whole}" width="{2 * WIDTH}">'
        f"<style>svg{{{colours}}}{STYLE}</style>"
        f'<rect width="{WIDTH}" height="{whole}" fill="#fff"/>'
        f'<text class="title" x="10" y="18">{escape(title)}</text>'
        f'<g transform="translate(0 {HEAD})">{drawn}</g>{legend}</svg>\n',
        encoding="utf-8",
    )


def _entry(name: str, index: int, top: int) -> str:
    y = top + ROW * index + 10
    dash = f'stroke-dasharray="{DASHES[index]}"' if DASHES[index] else ""
    return (
        f'<line class="line" style="--c:var(--series-{index})" {dash} x1="50" x2="76" y1="{y}" '
        f'y2="{y}"/><text x="84" y="{y + 4}">{escape(name)}</text>'
    )
