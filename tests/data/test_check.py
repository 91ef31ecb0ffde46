"""What `mmrl data check` finds, one defect a file; and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmrl.cli_data import app
from mmrl.data.check import EXAMPLES, Report, check
from mmrl.data.files import cache_folder
from mmrl.data.options import is_option, options
from mmrl.data.video import encode_webp

CHOICE = "Which? A) CT, B) MRI"


def noise(seed: int) -> Image.Image:
    """A picture that no other seed resembles."""
    levels = np.random.default_rng(seed).integers(0, 256, (24, 24)).astype(np.uint8)
    return Image.fromarray(levels).resize((120, 100), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 0 to 5, and edits of picture 0."""
    for seed in range(6):
        noise(seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    small = noise(0).resize((90, 75)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    small.save(tmp_path / "edited.jpg", quality=85)
    return tmp_path


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(image: str, **other) -> dict:
    return {"text": CHOICE, "images": [image], "answer": "A"} | other


def counts(report: Report) -> dict[str, int]:
    return {kind: finding.count for kind, finding in report.problems.items()}


def test_sound_files_have_no_problem(folder: Path) -> None:
    train = write(folder / "train.jsonl", row("0.png"), row("1.png", answer="B"))
    test = write(folder / "test.jsonl", row("2.png"), row("3.png"))
    assert not check([train], [test]).problems


def test_a_leak_is_the_picture_whatever_is_asked(folder: Path) -> None:
    train = write(folder / "train.jsonl", row("0.png"), row("1.png"))
    test = write(folder / "test.jsonl", row("copy.png", text="Another? A) x, B) y"))
    found = check([train], [test]).problems
    assert list(found) == ["leak: same picture"]
    assert found["leak: same picture"].examples == [
        f"{train}:1 {folder / '0.png'} = {test}:1 {folder / 'copy.png'}"
    ]


def test_a_mirrored_smaller_jpeg_is_a_leak_too(folder: Path) -> None:
    train = write(folder / "train.jsonl", row("0.png"), row("1.png"))
    test = write(folder / "test.jsonl", row("edited.jpg"), row("2.png"))
    assert counts(check([train], [test])) == {"leak: near copy of a picture": 1}


def test_a_question_without_pictures_leaks_by_its_words(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"text": "2 + 2?", "answer": "4"}, {"text": "other"})
    test = write(tmp_path / "test.jsonl", {"text": "2 + 2?", "answer": "4"})
    assert counts(check([train], [test])) == {"leak: same prompt": 1}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("0.png", answer="C")], {"answer is no option": 1}),
        ([row("0.png", answer=" ")], {"empty answer": 1}),
        ([row("0.png", text=" ")], {"row cannot be used": 1}),
        ([row("0.png", images="0.png")], {"row cannot be used": 1}),
        ([row("0.png"), row("0.png")], {"prompt repeated": 1}),
        ([row("0.png"), row("0.png", answer="B")], {"same question, other answer": 1}),
        ([row("0.png"), row("copy.png", text="other")], {"picture stored twice": 1}),
        ([row("gone.png"), row("gone.png", text="other")], {"picture cannot be read": 1}),
        ([row("cut.png")], {"picture cannot be read": 1}),
        ([row("deep.png")], {"picture cannot be read": 1}),
        ([{"text": "x", "videos": ["cut.webp"]}], {"video cannot be read": 1}),
        ([{"text": "x", "videos": ["fine.webp"]}], {}),
        ([], {"file without prompts": 1}),
    ],
)
def test_each_defect_has_its_name(folder: Path, rows: list[dict], expected: dict) -> None:
    content = (folder / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(folder / "deep.png")
    import torch

    video = encode_webp(torch.rand(3, 3, 8, 8), fps=8)
    (folder / "fine.webp").write_bytes(video)
    (folder / "cut.webp").write_bytes(video[:40])
    assert counts(check([write(folder / "a.jsonl", *rows)])) == expected


def test_one_bad_line_does_not_hide_the_others(folder: Path) -> None:
    path = folder / "a.jsonl"
    path.write_text(json.dumps(row("0.png")) + "\n{broken\n[1]\n" + json.dumps(row("1.png")))
    report = check([str(path)])
    assert counts(report) == {"row cannot be used": 2}
    assert ":2: not valid JSON" in report.problems["row cannot be used"].examples[0]
    assert report.statistics["prompts"] == 2


def test_near_copies_inside_a_split_are_a_note(folder: Path) -> None:
    report = check([write(folder / "a.jsonl", row("0.png"), row("edited.jpg"), row("1.png"))])
    assert not report.problems
    assert report.notes["near copy of a picture"].count == 1


def test_findings_are_counted_beyond_the_examples_shown(folder: Path) -> None:
    rows = [row("0.png", text=f"{number} {CHOICE}", answer="Z") for number in range(12)]
    finding = check([write(folder / "a.jsonl", *rows)]).problems["answer is no option"]
    assert finding.count == 12 and len(finding.examples) == EXAMPLES


def test_statistics_count_kinds_answers_sizes_and_lengths(folder: Path) -> None:
    rows = [
        row("0.png", metadata={"modality": "CT", "question_type": "Anatomy"}),
        row("0.png", text="How many?", answer=None, metadata={"modality": "CT"}),
        row("edited.jpg", answer="B", metadata={"modality": "MRI"}),
    ]
    found = check([write(folder / "a.jsonl", *rows)]).statistics
    assert (found["prompts"], found["pictures"], found["without an answer"]) == (3, 2, 1)
    assert found["modality"] == {"CT": 2, "MRI": 1} and found["question_type"] == {"Anatomy": 1}
    assert found["answers"] == {"A": 1, "B": 1} and found["majority"] == 0.5
    assert found["width"] == {"least": 90, "median": 90, "greatest": 120}
    assert found["text characters"] == {"least": 9, "median": 20, "greatest": 20}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHOICE, {"A": "CT", "B": "MRI"}),
        ("Which?\n(A) one\n(B) two", {"A": "one", "B": "two"}),
        ("Which?\nA. x; B. y; C. z", {"A": "x", "B": "y", "C": "z"}),
        ("Which? A:Lung, B:Heart", {"A": "Lung", "B": "Heart"}),
        ("Type B) is meant?", {}),
        ("Which vitamin, A or B?", {}),
    ],
)
def test_options_are_letters_that_run_from_a(text: str, expected: dict[str, str]) -> None:
    assert options(text) == expected


@pytest.mark.parametrize("answer", ["A", "A, B", "AB", "ct", "B) MRI"])
def test_letters_texts_and_both_are_options(answer: str) -> None:
    assert is_option(answer, options(CHOICE))


@pytest.mark.parametrize("answer", ["C", "A, C", "AA", "X-ray", "A) MRI", "a"])
def test_other_answers_are_none(answer: str) -> None:
    assert not is_option(answer, options(CHOICE))


@pytest.mark.parametrize(("answer", "status"), [("A", 0), ("C", 1)])
def test_the_exit_status_tells_and_json_holds_all(folder: Path, answer: str, status: int) -> None:
    file = write(folder / "a.jsonl", row("0.png", answer=answer))
    done = CliRunner().invoke(app, ["check", file, "--json"])
    assert done.exit_code == status
    report = json.loads(done.stdout)
    assert set(report) == {"problems", "notes", "statistics"}
    assert bool(report["problems"]) == bool(status) and report["statistics"]["prompts"] == 1


def test_the_table_names_the_problem_and_its_place(folder: Path) -> None:
    file = write(folder / "a.jsonl", row("0.png", answer="[C]"))
    done = CliRunner().invoke(app, ["check", file], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "answer is no option" in done.stdout and f"{file}:1: '[C]', options A, B" in done.stdout


def test_a_missing_file_is_a_mistake_of_use(tmp_path: Path) -> None:
    code = "from mmrl.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "check", str(tmp_path / "gone.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == f"error: {tmp_path / 'gone.jsonl'}: no such prompt file"


@pytest.mark.real
def test_recorded_sessions_of_two_applications_share_no_screen() -> None:
    name = "emr_recording"
    if not (cache_folder() / name).is_dir():
        pytest.skip(f"`mmrl data fetch {name}` first")
    train, test = f"cache:{name}/train.jsonl", f"cache:{name}/test.jsonl"
    assert not check([train], [test]).problems
