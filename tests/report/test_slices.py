"""Evaluations taken apart: slices, calibration, and runs against modalities."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmrl.evaluate.result import Result, Row, write_result
from mmrl.report.page import report_html
from mmrl.report.run import read_run
from mmrl.report.slices import matrices_html, slices_html


def test_slices_show_both_modalities_before_and_after_and_escape_their_names(demo_folder: Path):
    shown = slices_html(read_run(demo_folder / "vlm"))
    assert "modality=X-ray" in shown and "modality=&lt;MRI&gt;" in shown and "<MRI>" not in shown
    assert "0.400 [" in shown and "0.700 [" in shown and "n = 20" in shown


def test_confidence_is_drawn_with_its_error(demo_folder: Path) -> None:
    shown = slices_html(read_run(demo_folder / "vlm"))
    assert "ECE 0.400" in shown and "ECE 0.100" in shown
    assert "40 answers: confidence 0.80, right 0.40" in shown


def test_several_runs_make_a_heat_map_and_one_makes_none(demo_folder: Path) -> None:
    runs = [read_run(demo_folder / name) for name in ("video", "vlm")]
    shown = matrices_html(runs)
    assert shown.count('class="heat"') == 4
    assert 'style="--share:1.000">0.700' in shown and 'style="--share:0.000">0.350' in shown
    assert matrices_html(runs[:1]) == ""
    assert shown in report_html(runs)


def test_a_heat_map_ends_with_its_means_and_has_none_where_a_cell_is_missing(
    demo_folder: Path, tmp_path: Path
) -> None:
    runs = [read_run(demo_folder / name) for name in ("video", "vlm")]
    shown = matrices_html(runs)
    assert "by modality: mean of all cells 0.525" in shown
    assert '<tr><th scope="row">mean</th><td class="number">0.525' in shown
    copied = tmp_path / "short"
    shutil.copytree(demo_folder / "vlm", copied)
    kept = [
        Row("?", index, index, {"accuracy": 1.0}, {"modality": name})
        for index, name in enumerate(("X-ray", "CT"))
    ]
    after = Result({"weights": "after"}, {"accuracy": {}}, kept)
    write_result(copied / "evaluations" / "after", after)
    shown = matrices_html([*runs, read_run(copied)])
    assert "no means: video was not measured on CT (3 of 9 cells missing)" in shown
    assert '<th scope="row">mean</th>' not in shown
