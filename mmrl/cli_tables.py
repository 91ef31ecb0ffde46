"""Tables of the command line: cells are printed as they are, whatever brackets they hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mmrl.evaluate.compare import Comparison
    from mmrl.evaluate.result import Result

NO_LIMIT = 100_000
"""Columns of an output that is no terminal."""
MOST_REASONS = 10
"""Reasons of missing scores that are printed; the files hold them all."""


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False
) -> None:
    """A table without markup, emoji codes and highlighting, for samples hold any text.

    Nothing is cut off: on a terminal long cells go on in the next line, elsewhere a row is a line.
    With `numbers` all columns but the first stand at the right.
    """
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        side = "right" if numbers and place else "left"
        table.add_column(head, overflow="fold", justify=side)
    for cells in rows:
        table.add_row(*cells)
    plain_console().print(table)


def plain_console() -> Console:
    """A console that changes no text, and breaks lines on a terminal only."""
    width = None if sys.stdout.isatty() else NO_LIMIT
    return Console(markup=False, emoji=False, highlight=False, width=width)


def one_line(text: str, most: int) -> str:
    """The beginning of a text in one line, what cannot be printed left out."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:most]


def print_metrics(result: Result) -> None:
    """Means by slice, what their intervals come from, and why scores are missing."""
    heads = ("metric", "slice", "mean", f"{100 * result.level:g} % interval", "n", "missing")
    print_table(
        heads,
        (
            (
                m.name,
                m.slice,
                f"{m.mean:.4f}",
                interval(m.low, m.high),
                str(m.n),
                str(m.missing or ""),
            )
            for m in result.metrics()
        ),
    )
    console = plain_console()
    console.print(result.resampled())
    for name, reason, count in result.failures()[:MOST_REASONS]:
        console.print(f"no {name} for {count}: {one_line(reason, 200)}")


def print_rows(result: Result) -> None:
    """Scores of every sample; in the place of a missing one, what kept it away."""
    names = result.names()
    rows = []
    for row in result.rows:
        shown = Path(row.media).name if row.media else row.text or ""
        found = ((row.scores.get(name), row.failures.get(name, "")) for name in names)
        cells = (why.split(":")[0] if value is None else f"{value:.4f}" for value, why in found)
        rows.append((one_line(shown, 40), *cells))
    print_table(("sample", *names), rows)


def print_comparison(found: Sequence[Comparison]) -> None:
    """A line a metric, and what was tested."""
    heads = ("metric", "first", "second", "difference", "wins/ties/losses", "win rate", "p", "test")
    rows = []
    for one in found:
        low, high = one.wins.interval()
        rows.append(
            (
                one.name,
                f"{one.before:.4f}",
                f"{one.after:.4f}",
                f"{one.difference:+.4f} {interval(one.low, one.high, '+.4f')}",
                f"{one.wins.wins}/{one.wins.ties}/{one.wins.losses}",
                f"{one.wins.rate:.1%} [{low:.1%}, {high:.1%}]",
                f"{one.p_value:.4f}",
                one.test,
                one.verdict,
            )
        )
    print_table((*heads, ""), rows)
    units = max(one.units for one in found)
    plain_console().print(
        f"pairs of {units} prompts; p corrected over {len(found)} metrics (Holm); rose or fell: "
        f"the interval leaves out 0 and p is at most {1 - found[0].level:.2g}"
    )


def print_changes(run: Path) -> None:
    """What a run's evaluations before and after say, as the head of its report; nothing without."""
    from mmrl.report.changes import changes, level, signed
    from mmrl.report.run import read_run

    data = read_run(run)
    found = changes(data)
    if not found:
        return
    heads = ("held-out metric", "", "before", "after", "change", "")
    rows = (
        (
            one.name,
            "watched" if one.watched else "trained",
            str(one.before),
            str(one.after),
            signed(one.difference) if one.difference else "",
            one.verdict,
        )
        for one in found
    )
    print_table(heads, rows)
    plain_console().print(
        f"means of {found[0].n} samples with {level(data)} intervals; rose or fell as "
        "`mmrl compare` says it"
    )


def interval(low: float, high: float, form: str = ".4f") -> str:
    """Both bounds; empty where there is no interval."""
    return f"[{low:{form}}, {high:{form}}]" if math.isfinite(low) else ""
