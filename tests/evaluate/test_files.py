"""Finished samples from files: what stands for a sample, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.data.prompts import DataError
from mmrl.data.video import encode_webp, video_fps, write_mp4
from mmrl.evaluate.files import find_samples, score_files
from mmrl.evaluate.result import read_result
from mmrl.reward import RewardTable


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two clips with their prompts beside them, and one that is torn."""
    torch.manual_seed(0)
    (tmp_path / "a.webp").write_bytes(encode_webp(torch.rand(6, 3, 64, 64), fps=10))
    write_mp4(tmp_path / "b.mp4", torch.rand(6, 3, 64, 64), fps=12)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"a picture of {name}\n")
    return tmp_path


def test_media_of_a_folder_carry_the_prompts_beside_them(videos: Path) -> None:
    found = find_samples([videos])
    assert [sample.prompt.text for sample in found] == [f"a picture of {n}" for n in "abc"]


def test_frames_a_second_come_from_the_file(videos: Path) -> None:
    assert video_fps(videos / "a.webp") == pytest.approx(10)
    assert video_fps(videos / "b.mp4") == pytest.approx(12, rel=1e-3)


def test_a_torn_file_has_no_score_and_says_why_and_the_others_have_theirs(videos: Path) -> None:
    result = score_files(find_samples([videos]), RewardTable.parse({"smoothness": {}}), rows=2)
    scores = [row.scores["smoothness"] for row in result.rows]
    assert scores[0] is not None and scores[1] is not None and scores[2] is None
    assert "c.mp4" in result.rows[2].metadata["error"]
    assert len({row.sha256 for row in result.rows}) == 3


def test_answers_of_a_file_are_scored_by_text_rewards(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Which?", "text": "<answer>A</answer>", "answer": "A", "confidence": 0.9},
        {"prompt": "Which one?", "text": "<answer>B</answer>", "answer": "A", "confidence": 0.6},
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score_files(find_samples([file]), RewardTable.parse({"accuracy": {}}))
    assert [row.scores["accuracy"] for row in result.rows] == [1.0, 0.0]
    assert {m.name for m in result.metrics()} >= {"accuracy", "calibration/ece"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"prompt": " ", "text": "x"}, "non-empty"),
        ({"prompt": "p"}, "either 'video'"),
        ({"prompt": "p", "text": "x", "video": "y"}, "either 'video'"),
        ({"prompt": "p", "video": "none.mp4"}, "does not exist"),
        ({"prompt": "p", "text": "x", "confidence": 2}, r"\[0, 1\]"),
        ({"prompt": "p", "text": "x", "reward": 2}, "unknown field 'reward'"),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path: Path, line: dict, reason: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": "p", "text": "x"}\n' + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=rf"answers\.jsonl:2.*{reason}"):
        find_samples([file])


def test_a_picture_without_a_prompt_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="give --prompt"):
        find_samples([tmp_path / "x.png"])


def test_score_prints_and_files_its_table_and_compare_reads_it(videos: Path) -> None:
    out = videos / "out"
    clip = "clip_score.model=assets/tiny-clip"
    command = ["score", str(videos / "a.webp"), str(videos / "b.mp4"), "--rewards"]
    command += ["clip_score,smoothness", "--set", clip, "--output", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "clip_score" in done.output and "a.webp" in done.output
    result = read_result(out)
    assert len(result.rows) == 2
    origin = result.scorers["clip_score"]
    assert len(origin["sha256"]) == 64 and origin["frames"] == "uniform:8"
    same = CliRunner().invoke(app, ["compare", str(out), str(out), "--must-not-fall", "smoothness"])
    assert same.exit_code == 0 and "0/2/0" in same.output, same.output
