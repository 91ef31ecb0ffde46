"""An evaluation's files: slices, pass@k, calibration, and numbers that come back as they went."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mmrl.config import UserError
from mmrl.evaluate.calibration import expected_calibration_error
from mmrl.evaluate.compare import compare
from mmrl.evaluate.generalization import matrices
from mmrl.evaluate.metrics import bootstrap_ci, pass_at_k
from mmrl.evaluate.result import Result, Row, read_result, write_result


def result(scores: list[float | None], modality: str = "X-ray", **fields) -> Result:
    """One answer a prompt, half of them of another modality."""
    rows = [
        Row(
            prompt=f"question {index}",
            group=index,
            seed=index,
            scores={"accuracy": score},
            metadata={"modality": modality if index % 2 else "MRI"},
            confidence=fields.get("confidence"),
        )
        for index, score in enumerate(scores)
    ]
    return Result({"weights": "before"}, {"accuracy": {"ignore_case": False}}, rows)


def test_files_give_back_the_same_numbers(tmp_path: Path) -> None:
    before = result([1 / 3, None, 0.1 + 0.2, 1e-17])
    write_result(tmp_path, before)
    assert read_result(tmp_path) == before
    assert read_result(tmp_path).metrics()[0] == before.metrics()[0]


def test_the_summaries_hold_every_metric_by_slice(tmp_path: Path) -> None:
    write_result(tmp_path, result([1.0, 0.0, 1.0, None]))
    lines = (tmp_path / "summary.csv").read_text().splitlines()
    assert lines[0] == "name,slice,mean,low,high,n,missing"
    assert [line.split(",")[1] for line in lines[1:]] == ["all", "modality=MRI", "modality=X-ray"]
    table = (tmp_path / "summary.md").read_text()
    assert "| accuracy | modality=X-ray | 0.0000 |" in table and "ignore_case False" in table
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"][0]["missing"] == 1 and report["versions"]["torch"]


def test_a_mean_is_the_bootstrap_s_and_a_missing_score_is_no_zero() -> None:
    found = result([1.0, 0.0, 1.0, None]).metrics()[0]
    assert (found.mean, found.low, found.high) == bootstrap_ci([1.0, 0.0, 1.0, math.nan])
    assert found.mean == pytest.approx(2 / 3) and (found.n, found.missing) == (3, 1)


def test_several_right_or_wrong_answers_a_prompt_give_pass_at_k() -> None:
    rows = [
        Row(f"q{task}", task, member, {"accuracy": float(member < right)})
        for task, right in enumerate((0, 1, 4))
        for member in range(4)
    ]
    found = {m.name: m for m in Result({}, {}, rows).metrics()}
    expected = sum(pass_at_k(4, right, 2) for right in (0, 1, 4)) / 3
    assert found["accuracy/pass@2"].mean == pytest.approx(expected)
    assert "accuracy/pass@4" in found and "accuracy/pass@8" not in found


def test_stated_confidence_is_held_against_what_was_right() -> None:
    found = {m.name: m for m in result([1.0, 0.0, 1.0, 1.0], confidence=0.9).metrics()[-6:]}
    expected = expected_calibration_error([0.9] * 4, [1.0, 0.0, 1.0, 1.0])
    all_rows = next(
        m
        for m in result([1.0, 0.0, 1.0, 1.0], confidence=0.9).metrics()
        if m.name == "calibration/ece" and m.slice == "all"
    )
    assert all_rows.mean == pytest.approx(expected) and "calibration/brier" in found


def test_comparing_pairs_by_prompt_and_seed_whatever_their_order() -> None:
    before, after = result([0.0] * 8 + [1.0] * 8), result([1.0] * 12 + [0.0] * 4)
    shuffled = Result(after.subject, after.scorers, list(reversed(after.rows)))
    (found,) = compare(before, shuffled)
    assert found == compare(before, after)[0]
    assert (found.wins.wins, found.wins.losses, found.wins.ties) == (8, 4, 4)
    assert found.difference == pytest.approx(0.25) and found.verdict == "no clear change"
    assert compare(result([0.0] * 16), result([1.0] * 16))[0].verdict == "rose"


def test_comparing_other_prompts_is_refused_with_their_count() -> None:
    with pytest.raises(UserError, match="2 samples stand only in the first"):
        compare(result([1.0] * 4), result([1.0] * 2))


def test_a_folder_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no report\.json"):
        read_result(tmp_path)
    write_result(tmp_path, result([1.0]))
    (tmp_path / "samples.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(UserError, match="not the files of an evaluation"):
        read_result(tmp_path)


def test_runs_against_modalities_make_a_matrix() -> None:
    (matrix,) = matrices({"on X-ray": result([0.0, 1.0] * 4), "on MRI": result([1.0, 0.5] * 4)})
    assert (matrix.key, list(matrix.columns)) == ("modality", ["MRI", "X-ray"])
    assert [list(row) for row in matrix.cells] == [[0.0, 1.0], [1.0, 0.5]]
    assert matrix.row_means() == [0.5, 0.75] and matrix.column_means() == [0.5, 0.75]
    assert matrix.told() == "mean of all cells 0.625"
