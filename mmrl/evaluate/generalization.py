"""How far what was learned on one kind of data carries: runs against slices of the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mmrl.evaluate.result import SLICE_KEYS, Result


@dataclass(frozen=True)
class Matrix:
    """Mean of one metric: a row a run, a column a value of the metadata; NaN: not measured.

    With one run per training modality this is the cross-modality table of Med-R1
    (arXiv:2503.13939), with one per question type its cross-task table. Every cell counts alike in
    a mean, however many samples it has. A mean over a missing cell is a ValueError.
    """

    metric: str
    key: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[float]]

    def missing(self) -> list[tuple[str, str]]:
        """Run and column of every cell that was not measured."""
        return [
            (row, column)
            for row, cells in zip(self.rows, self.cells, strict=True)
            for column, cell in zip(self.columns, cells, strict=True)
            if not math.isfinite(cell)
        ]

    def row_means(self) -> list[float]:
        """How well each run does everywhere."""
        self._check_complete()
        return [fmean(row) for row in self.cells]

    def column_means(self) -> list[float]:
        """How well each column is served by all runs."""
        self._check_complete()
        return [fmean(column) for column in zip(*self.cells, strict=True)]

    def overall(self) -> float:
        """Mean of all cells."""
        return fmean(self.row_means())

    def is_square(self) -> bool:
        """Whether there is one run for each column, named as it is (upper or lower case)."""
        names = [name.casefold() for name in self.rows]
        return sorted(names) == sorted(column.casefold() for column in self.columns)

    def diagonal_mean(self) -> float:
        """Mean of the n cells whose run learned on what it is tested on; needs a square."""
        return fmean(self._cells_where(same=True))

    def off_diagonal_mean(self) -> float:
        """Mean of the n^2 - n others: what carries over; needs a square of 2 columns or more."""
        return fmean(self._cells_where(same=False))

    def minus(self, other: Matrix) -> Matrix:
        """Cell by cell, as No-Think minus Think; ValueError where rows or columns differ."""
        mine, theirs = ((m.metric, m.key, *m.rows, *m.columns) for m in (self, other))
        if mine != theirs:
            raise ValueError(f"expected two matrices of the same cells, got {mine} and {theirs}")
        pairs = zip(self.cells, other.cells, strict=True)
        cells = [[a - b for a, b in zip(*rows, strict=True)] for rows in pairs]
        return Matrix(self.metric, self.key, self.rows, self.columns, cells)

    def told(self) -> str:
        """The means of the whole in words, or why there are none."""
        absent = self.missing()
        if absent:
            run, column = absent[0]
            count = f"{len(absent)} of {len(self.rows) * len(self.columns)} cells missing"
            return f"no means: {run} was not measured on {column} ({count})"
        whole = f"mean of all cells {self.overall():.3f}"
        if not self.is_square():
            return whole
        inside, outside = self.diagonal_mean(), self.off_diagonal_mean()
        return f"{whole}, on the diagonal {inside:.3f}, off it {outside:.3f}"

    def _check_complete(self) -> None:
        absent = [f"{run} on {column}" for run, column in self.missing()]
        if absent:
            raise ValueError(
                f"{self.metric} by {self.key} was not measured for {', '.join(absent)}; evaluate "
                "every run on every slice"
            )

    def _cells_where(self, *, same: bool) -> list[float]:
        self._check_complete()
        if not self.is_square():
            raise ValueError(
                f"a diagonal needs a run for each column, named as it is: got runs "
                f"{', '.join(self.rows)} and columns {', '.join(self.columns)}"
            )
        return [
            cell
            for row, cells in zip(self.rows, self.cells, strict=True)
            for column, cell in zip(self.columns, cells, strict=True)
            if (row.casefold() == column.casefold()) == same
        ]


def matrices(results: Mapping[str, Result]) -> list[Matrix]:
    """One matrix per metadata key that has several values, for every metric the runs share."""
    found = []
    tables = {name: _by_slice(result) for name, result in results.items()}
    shared = [set(result.names()) for result in results.values()]
    names = [n for n in next(iter(results.values())).names() if all(n in s for s in shared)]
    for key in SLICE_KEYS:
        columns = sorted({v for table in tables.values() for k, v, _ in table if k == key})
        for metric in names if len(columns) > 1 else ():
            cells = [
                [table.get((key, column, metric), math.nan) for column in columns]
                for table in tables.values()
            ]
            found.append(Matrix(metric, key, list(results), columns, cells))
    return found


def _by_slice(result: Result) -> dict[tuple[str, str, str], float]:
    found = {}
    for metric in result.metrics():
        key, _, value = metric.slice.partition("=")
        if value:
            found[key, value, metric.name] = metric.mean
    return found
