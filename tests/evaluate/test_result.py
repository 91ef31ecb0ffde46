"""An evaluation's files: slices, pass@k, calibration, and numbers that come back as they went."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.config import UserError
from mmrl.evaluate.calibration import expected_calibration_error
from mmrl.evaluate.compare import compare
from mmrl.evaluate.generalization import matrices
from mmrl.evaluate.metrics import bootstrap_ci, pass_at_k
from mmrl.evaluate.result import Result, Row, read_result, write_result
from mmrl.evaluate.row import Metric


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
    assert lines[0] == "name,slice,mean,low,high,n,missing,note"
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


def test_the_word_is_clear_only_where_interval_and_corrected_p_agree() -> None:
    """Five prompts that all rise leave out 0 at once, but chance does so in 1 of 16 sets."""
    before = [Row(f"q{i}", i, i, {"a": 0.0, "b": 0.0}) for i in range(5)]
    after = [Row(f"q{i}", i, i, {"a": 0.5 + 0.1 * i, "b": 0.0}) for i in range(5)]
    found = {one.name: one for one in compare(Result({}, {}, before), Result({}, {}, after))}
    assert found["a"].low > 0 and found["a"].p_value > 0.05
    assert found["a"].verdict == "no clear change"
    assert (found["a"].test, found["b"].test) == ("sign flips", "McNemar")


def test_samples_of_one_prompt_are_no_ground_for_a_verdict() -> None:
    before = [Row("q", 0, seed, {"a": 0.0}) for seed in range(50)]
    after = [Row("q", 0, seed, {"a": 1.0}) for seed in range(50)]
    (found,) = compare(Result({}, {}, before), Result({}, {}, after))
    assert math.isnan(found.low) and found.p_value == 1.0
    assert found.verdict == "one prompt: no interval"


def test_a_metric_without_scores_costs_the_others_nothing_and_alone_is_an_error() -> None:
    rows = [Row(f"q{i}", i, i, {"a": 1.0, "b": None}) for i in range(4)]
    assert [one.name for one in compare(Result({}, {}, rows), Result({}, {}, rows))] == ["a"]
    blank = Result({}, {}, [replace(row, scores={"b": None}) for row in rows])
    with pytest.raises(UserError, match="no metric with a score in both"):
        compare(blank, blank)


def test_right_and_wrong_answers_are_tested_exactly() -> None:
    """Six of six discordant pairs are won: 2 / 2^6."""
    (found,) = compare(result([0.0] * 6 + [1.0] * 4), result([1.0] * 10))
    assert found.test == "McNemar" and found.p_value == pytest.approx(2 / 64)
    assert found.verdict == "rose"


def test_a_gate_trips_on_a_clear_fall_alone_and_refuses_to_judge_one_prompt(
    tmp_path: Path,
) -> None:
    noise = [Row(f"q{i}", i, i, {"accuracy": 0.5 - 0.01 * (i < 4)}) for i in range(5)]
    arms = {
        "before": result([1.0] * 12).rows,
        "fallen": result([0.0] * 9 + [1.0] * 3).rows,
        "noise": noise,
        "even": [replace(row, scores={"accuracy": 0.5}) for row in noise],
        "one": [Row("q", 0, seed, {"accuracy": 1.0}) for seed in range(4)],
    }
    for name, rows in arms.items():
        write_result(tmp_path / name, Result({}, {}, rows))

    def gate(before: str, after: str):
        folders = [str(tmp_path / name) for name in (before, after)]
        return CliRunner().invoke(app, ["compare", *folders, "--must-not-fall", "accuracy"])

    assert gate("before", "fallen").exit_code == 1
    assert gate("even", "noise").exit_code == 0
    refused = gate("one", "one")
    assert isinstance(refused.exception, UserError) and "one prompt" in str(refused.exception)


def test_a_majority_to_beat_stands_beside_accuracy_and_every_answer_counts_alike() -> None:
    """Always "no" is right on 3 of 4 questions and on half of the answers."""
    rows = [
        Row(f"q{i}", i, i, {"accuracy": float(i < 6)}, answer="no" if i < 6 else "yes")
        for i in range(8)
    ]
    found = {m.name: m.mean for m in Result({}, {}, rows).metrics()}
    assert found["accuracy/majority"] == found["accuracy"] == 0.75
    assert found["accuracy/balanced"] == 0.5
    open_answers = [replace(row, answer=str(i)) for i, row in enumerate(rows)]
    assert {m.name for m in Result({}, {}, open_answers).metrics()} == {"accuracy"}


def asked(name: str, pairs: list[tuple[str, str, float]]) -> dict[str, Metric]:
    """Metrics of questions with these references, written answers and scores."""
    rows = [
        Row(f"q{i}", i, i, {name: score}, answer=answer, text=f"<answer>{said}</answer>")
        for i, (answer, said, score) in enumerate(pairs)
    ]
    return {m.name: m for m in Result({}, {}, rows).metrics()}


def test_matthews_correlation_reads_what_a_wrong_answer_says() -> None:
    """Balanced accuracy is 2/3 both times: it asks what is right, not what is said instead."""
    even = [("yes", "yes", 1.0)] * 2 + [("yes", "No", 0.0)] + [("no", "no", 1.0)] * 2
    found = asked("accuracy", [*even, ("no", "yes", 0.0)])["accuracy/mcc"]
    assert (found.mean, found.n, found.note) == (pytest.approx(1 / 3), 6, "")
    unread = asked("accuracy", [*even, ("no", "maybe", 0.0)])["accuracy/mcc"]
    # c n - sum p t = 4*6 - (2*3 + 3*3) = 9; n^2 - sum p^2 = 36 - 14; n^2 - sum t^2 = 18
    assert unread.mean == pytest.approx(9 / math.sqrt(22 * 18))


def test_letters_are_read_with_their_text_and_a_form_that_does_not_count_is_no_answer() -> None:
    right = [("A", "A", 1.0), ("B", "B", 1.0), ("C", "C", 1.0)]
    wrong = [("A", "(B) text", 0.0), ("B", "C", 0.0), ("C", "C.", 0.0)]
    found = asked("multiple_choice", right + wrong)["multiple_choice/mcc"].mean
    # said: A, B, C, B, C, none: p = 1, 2, 2, 1 and t = 2, 2, 2
    assert found == pytest.approx((3 * 6 - 10) / math.sqrt((36 - 10) * (36 - 12)))


def test_a_model_of_one_answer_has_no_matthews_correlation_and_the_summary_says_why(
    tmp_path: Path,
) -> None:
    rows = [
        Row(f"q{i}", i, i, {"accuracy": hit}, answer=answer, text="<answer>no</answer>")
        for i, (answer, hit) in enumerate([("no", 1.0), ("no", 1.0), ("yes", 0.0), ("yes", 0.0)])
    ]
    write_result(tmp_path, Result({}, {}, rows))
    told = {m["name"]: m for m in json.loads((tmp_path / "report.json").read_text())["metrics"]}
    assert told["accuracy/mcc"]["mean"] is None
    summary = (tmp_path / "summary.md").read_text()
    assert "`accuracy/mcc` of all is undefined: one answer alone is right, or was given." in summary


def test_calibration_stands_in_five_numbers() -> None:
    metrics = result([1.0, 0.0, 1.0, 1.0], confidence=0.9).metrics()
    found = {m.name: m.mean for m in metrics if m.slice == "all"}
    assert found["calibration/mce"] == pytest.approx(0.15)
    assert found["calibration/nll"] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
    assert "calibration/adaptive_ece" in found


def test_why_scores_are_missing_is_filed_and_counted(tmp_path: Path) -> None:
    rows = [
        Row("q", i, i, {"clip": None}, failures={"clip": "error: no such model"}) for i in range(2)
    ]
    found = Result({}, {}, [*rows, Row("q", 2, 2, {"clip": 1.0})])
    write_result(tmp_path, found)
    assert read_result(tmp_path).failures() == [("clip", "error: no such model", 2)]
    assert "no `clip` for 2: error: no such model." in (tmp_path / "summary.md").read_text()


def test_the_summary_says_what_was_resampled(tmp_path: Path) -> None:
    assert result([1.0, 0.0]).resampled() == "95 % intervals by resampling 2 prompts"
    files = replace(result([1.0, 0.0]), subject={"resampled": "files"})
    assert files.resampled() == "95 % intervals by resampling 2 files"
    write_result(tmp_path, result([1.0]))
    assert "No interval: there is one prompt to resample." in (tmp_path / "summary.md").read_text()


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
