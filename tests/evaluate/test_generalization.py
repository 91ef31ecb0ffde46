"""Runs against slices: the means of Med-R1's tables, and what has none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from mmrl.cli_evaluate import _print_matrices
from mmrl.evaluate.generalization import Matrix, matrices
from mmrl.evaluate.result import Result, Row

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/med_r1_matrix.json").read_text("utf-8"))


def square(size: int, seed: int = 0) -> Matrix:
    """Random cells; the runs are the columns' names in another case and order."""
    names = [f"Kind{index}" for index in range(size)]
    cells = torch.rand((size, size), generator=torch.Generator().manual_seed(seed)).double()
    return Matrix("accuracy", "modality", [n.lower() for n in names[::-1]], names, cells.tolist())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["id"])
def test_means_of_the_published_table_equal_the_reference(case: dict) -> None:
    names, expected = case["inputs"]["labels"], case["output"]["value"]
    matrix = Matrix("accuracy", "question_type", names, names, case["inputs"]["matrix"])
    assert matrix.row_means() == pytest.approx(expected["row_mean"], abs=1e-12)
    assert matrix.column_means() == pytest.approx(expected["col_mean"], abs=1e-12)
    assert matrix.overall() == pytest.approx(expected["overall"], abs=1e-12)
    assert matrix.diagonal_mean() == pytest.approx(expected["diagonal_mean"], abs=1e-12)
    assert matrix.off_diagonal_mean() == pytest.approx(expected["off_diagonal_mean"], abs=1e-12)
    assert matrix.told() == "mean of all cells 0.582, on the diagonal 2.688, off it 0.056"


@pytest.mark.parametrize("size", [2, 5, 8])
def test_means_recombine(size: int) -> None:
    """Med-R1's table: overall = mean of either means = (d n + o (n^2 - n)) / n^2."""
    matrix = square(size)
    whole, inside, outside = matrix.overall(), matrix.diagonal_mean(), matrix.off_diagonal_mean()
    assert whole == pytest.approx(fmean(matrix.column_means()), abs=1e-12)
    assert whole == pytest.approx((inside * size + outside * (size**2 - size)) / size**2, abs=1e-12)
    last = size - 1
    assert inside == pytest.approx(fmean(matrix.cells[i][last - i] for i in range(size)))


def test_a_matrix_minus_itself_is_0_and_means_are_linear() -> None:
    first, second = square(4), square(4, seed=1)
    assert first.minus(first).cells == [[0.0] * 4] * 4
    found = first.minus(second)
    assert found.overall() == pytest.approx(first.overall() - second.overall(), abs=1e-12)
    with pytest.raises(ValueError, match="expected two matrices of the same cells"):
        first.minus(replace(second, columns=["a", "b", "c", "d"]))


@pytest.mark.parametrize(
    "mean", ["row_means", "column_means", "overall", "diagonal_mean", "off_diagonal_mean"]
)
def test_no_mean_leaves_a_missing_cell_out(mean: str) -> None:
    whole = square(3)
    cells = [list(row) for row in whole.cells]
    cells[1][2] = math.nan
    gappy = replace(whole, cells=cells)
    assert gappy.missing() == [("kind1", "Kind2")]
    with pytest.raises(
        ValueError, match="accuracy by modality was not measured for kind1 on Kind2"
    ):
        getattr(gappy, mean)()
    assert gappy.told() == "no means: kind1 was not measured on Kind2 (1 of 9 cells missing)"


def test_a_diagonal_needs_a_run_for_each_column() -> None:
    other = replace(square(3), rows=["kind0", "kind1", "baseline"])
    assert other.overall() == square(3).overall()
    for mean in (other.diagonal_mean, other.off_diagonal_mean):
        with pytest.raises(ValueError, match="needs a run for each column, named as it is"):
            mean()


def answers(share: dict[str, float]) -> Result:
    """Ten answers of each modality, so many of them right."""
    rows = [
        Row("q", index, index, {"accuracy": float(index < 10 * right)}, {"modality": name})
        for name, right in share.items()
        for index in range(10)
    ]
    return Result({"weights": "after"}, {"accuracy": {}}, rows)


def test_the_tables_of_several_runs_end_with_their_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = {"mri": answers({"CT": 0.2, "MRI": 0.9}), "ct": answers({"CT": 0.7, "MRI": 0.4})}
    _print_matrices(runs)
    shown = capsys.readouterr().out
    assert "mean of all cells 0.550, on the diagonal 0.800, off it 0.300" in shown
    assert ["mean", "0.450", "0.650", "0.550"] in [line.split() for line in shown.splitlines()]
    short = {**runs, "short": answers({"CT": 0.5, "OCT": 0.5})}
    (matrix,) = matrices(short)
    assert len(matrix.missing()) == 3
    _print_matrices(short)
    shown = capsys.readouterr().out
    assert "no means: mri was not measured on OCT (3 of 9 cells missing)" in shown
    assert "nan" not in shown
