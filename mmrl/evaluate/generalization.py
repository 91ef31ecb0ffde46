"""How far what was learned on one kind of data carries: runs against slices of the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmrl.evaluate.result import SLICE_KEYS, Result


@dataclass(frozen=True)
class Matrix:
    """Mean of one metric: a row a run, a column a value of the metadata; NaN: not measured.

    With one run per training modality this is the cross-modality table of Med-R1
    (arXiv:2503.13939), with one per question type its cross-task table.
    """

    metric: str
    key: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[float]]

    def row_means(self) -> list[float]:
        """Unweighted mean over the columns of each run: every modality counts alike."""
        return [_mean(row) for row in self.cells]

    def column_means(self) -> list[float]:
        """Unweighted mean over the runs of each column."""
        return [_mean(column) for column in zip(*self.cells, strict=True)]


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


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
