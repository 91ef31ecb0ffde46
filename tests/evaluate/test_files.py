"""Finished samples from files: what stands for a sample, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.config import UserError
from mmrl.data.prompts import DataError
from mmrl.data.video import encode_webp, uniform_indices, video_fps, write_mp4
from mmrl.evaluate.files import frame_rules, score_files
from mmrl.evaluate.result import read_result
from mmrl.evaluate.samples import find_samples
from mmrl.reward import RewardTable, load_reward
from mmrl.types import Prompt, VideoSample


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
        ({"prompt": 3, "text": "x"}, "'prompt' must be"),
        ({"prompt": "p", "video": 3}, "'video' must be a string"),
        ({"prompt": "p", "text": 5}, "'text' must be a string"),
        ({"prompt": "p", "text": "x", "metadata": [1]}, "'metadata' must be an object"),
        ({"prompt": "p", "text": "x", "images": [3]}, "an image must be a path"),
        ({"prompt": "p", "text": "x", "images": "a.png"}, "'images' must be a list"),
        ({"prompt": "p", "text": "x", "answer": ["a"]}, "'answer' must be"),
        ({"prompt": "p", "text": "x", "seed": "one"}, "'seed' must be a number"),
        ({"prompt": "p", "text": "x", "seed": 1.5}, "whole number"),
        ({"prompt": "p", "text": "x", "confidence": "high"}, "'confidence' must be a number"),
        ({"prompt": "p", "text": "x", "confidence": True}, "'confidence' must be a number"),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path: Path, line: dict, reason: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": "p", "text": "x"}\n' + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=rf"answers\.jsonl:2.*{reason}"):
        find_samples([file])


def test_clips_of_one_prompt_of_the_command_line_are_resampled_by_themselves(
    videos: Path,
) -> None:
    """Of one prompt there is no interval; of a prompt given for all, each clip is a draw."""
    clips, table = [videos / "a.webp", videos / "b.mp4"], RewardTable.parse({"smoothness": {}})
    shared = score_files(find_samples(clips, "any"), table)
    assert shared.resampled() == "95 % intervals by resampling 2 files"
    assert math.isfinite(shared.metrics()[0].low)
    for name in "ab":
        (videos / f"{name}.txt").write_text("one prompt of both\n")
    alike = score_files(find_samples(clips), table)
    assert alike.resampled() == "no interval: there is one prompt to resample"
    assert math.isnan(alike.metrics()[0].low)
    assert alike.metrics()[0].mean == shared.metrics()[0].mean


def test_a_reward_that_fails_on_some_samples_costs_the_others_nothing(tmp_path: Path) -> None:
    """More than half of each batch fails, which would stop a training."""
    (tmp_path / "picky.py").write_text(
        "def picky(sample):\n"
        "    if 'bad' in sample.text:\n"
        "        raise ValueError(f'no score for {sample.text}')\n"
        "    return None if 'odd' in sample.text else 1.0\n"
    )
    texts = ["good", "bad", "bad", "bad", "odd", "good"] * 4
    lines = [{"prompt": f"p{i}", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    table = RewardTable.parse({"picky": {"path": f"{tmp_path}/picky.py:picky"}})
    found = score_files(find_samples([tmp_path / "answers.jsonl"]), table)
    assert [row.scores["picky"] for row in found.rows[:6]] == [1, None, None, None, None, 1]
    assert found.failures() == [
        ("picky", "error: ValueError: no score for bad (picky.py:3)", 12),
        ("picky", "abstained", 4),
    ]
    assert found.rows[0].failures == {}


def test_only_the_frames_that_rewards_read_are_decoded(tmp_path: Path) -> None:
    write_mp4(tmp_path / "long.mp4", torch.rand(60, 3, 64, 64), fps=12)
    (sample,) = find_samples([tmp_path / "long.mp4"], "a red three")
    clip = {"model": "assets/tiny-clip"}
    few = RewardTable.parse({"clip_score": {**clip, "num_frames": 4}})
    both = RewardTable.parse({"clip_score": {**clip, "num_frames": 4}, "smoothness": {}})
    assert frame_rules(few) == {4: ["clip_score"]}
    assert frame_rules(both) == {4: ["clip_score"], None: ["smoothness"]}
    whole = both.score_samples([sample.load()])
    found = score_files([sample], both).rows[0].scores
    assert list(found) == ["clip_score", "smoothness"]
    for name, value in found.items():
        assert value == pytest.approx(whole[name].item(), abs=1e-6)
    assert len(sample.load(4).video) == 4


def test_clip_scores_read_the_frames_they_name_and_no_other() -> None:
    """Spoiled frames elsewhere change nothing, and neither does leaving them out."""
    video = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    picked = uniform_indices(24, 4)
    spoiled = torch.rand(24, 3, 32, 32)
    spoiled[picked] = video[picked]
    models = {"clip_score": "clip", "hps": "clip", "pick_score": "pick"}
    for name, model in models.items():
        reward = load_reward(name, model=f"assets/tiny-{model}", num_frames=4)
        found = reward(
            [VideoSample(Prompt("a red three"), v) for v in (video, spoiled, video[picked])]
        )
        torch.testing.assert_close(found, found[:1].expand(3), atol=1e-6, rtol=0)


def test_a_video_too_large_to_hold_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrl.data.video.MAX_BYTES", 4 * 3 * 64 * 64 * 10)
    write_mp4(tmp_path / "long.mp4", torch.rand(12, 3, 64, 64), fps=12)
    (tmp_path / "long.webp").write_bytes(encode_webp(torch.rand(12, 3, 64, 64), fps=12))
    for name in ("long.mp4", "long.webp"):
        with pytest.raises(DataError, match=r"12 frames of 64x64 take .* GiB as floats"):
            find_samples([tmp_path / name], "p")[0].load()
        assert len(find_samples([tmp_path / name], "p")[0].load(10).video) == 10
    result = score_files(
        find_samples([tmp_path / "long.mp4"], "p"), RewardTable.parse({"smoothness": {}})
    )
    assert "frames of 64x64" in result.rows[0].failures["smoothness"]


def test_a_text_in_brackets_is_printed_and_does_not_cost_the_report(tmp_path: Path) -> None:
    line = {"prompt": "p", "text": "[/b] [red]a[/red] :smile:", "answer": "a"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    command = ["score", str(tmp_path / "answers.jsonl"), "--rewards", "accuracy"]
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "[/b] [red]a[/red] :smile:" in done.output
    assert (tmp_path / "out" / "report.json").is_file()


def test_a_picture_without_a_prompt_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="give --prompt"):
        find_samples([tmp_path / "x.png"])


def scored(*words: str) -> tuple[int, str]:
    """Exit status and what was said of it by `mmrl score`."""
    done = CliRunner().invoke(app, ["score", *words])
    return done.exit_code, f"{done.output}{done.exception or ''}"


def test_rewards_that_read_no_prompt_ask_for_none(videos: Path) -> None:
    (videos / "a.txt").unlink()
    status, said = scored(str(videos / "a.webp"), "--rewards", "smoothness, jpeg_size")
    assert status == 0 and "jpeg_size" in said, said
    with_prompt = ("--rewards", "smoothness,motion_direction")
    assert "give --prompt" in scored(str(videos / "a.webp"), *with_prompt)[1]


def test_where_nothing_was_scored_the_status_says_so(videos: Path) -> None:
    status, said = scored(str(videos / "c.mp4"), "--rewards", "smoothness")
    assert status != 0 and "nothing was scored (smoothness: unreadable" in said, said


def test_a_reward_of_the_other_kind_of_sample_is_refused_by_name(videos: Path) -> None:
    status, said = scored(str(videos / "a.webp"), "--rewards", "smoothness,accuracy")
    assert status != 0 and "reward 'accuracy' scores written answers" in said, said
    (videos / "mine.py").write_text("def mine(sample: 'TextSample') -> float:\n    return 1.0\n")
    table = RewardTable.parse({"mine": {"path": f"{videos}/mine.py:mine"}})
    with pytest.raises(UserError, match="reward 'mine' scores written answers"):
        score_files(find_samples([videos / "a.webp"]), table)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("smoothness", "--set smoothness: expected NAME.FIELD=VALUE, such as clip_score.model="),
        ("tolerance=1", "--set tolerance=1: expected NAME.FIELD=VALUE"),
        ("smothness.tolerance=1", "no such reward in --rewards; did you mean 'smoothness'?"),
        ("smoothness.tol=1", "rewards.smoothness.tol: unknown key"),
    ],
)
def test_a_wrong_set_is_named_as_it_was_typed(videos: Path, field: str, message: str) -> None:
    status, said = scored(str(videos / "a.webp"), "--rewards", "smoothness", "--set", field)
    assert status != 0 and message in said, said


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
