"""The page: true numbers, escaped text, no request, clear errors."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmrl.config import UserError
from mmrl.evaluate.compare import compare
from mmrl.evaluate.metrics import bootstrap_ci
from mmrl.evaluate.result import Result, read_result, write_result
from mmrl.evaluate.row import Row
from mmrl.evaluate.runner import Evaluation, write_gallery
from mmrl.report.changes import Change, Estimate, changes, number
from mmrl.report.gallery import data_uri, gallery_html
from mmrl.report.page import write_report
from mmrl.report.run import read_run
from mmrl.types import Prompt, VideoSample


class Reader(HTMLParser):
    """Collects tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(demo_folder, path)
    return path.read_text("utf-8")


def test_the_page_asks_nothing_of_the_network(page: str):
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in page
    assert re.findall(r"https?:|@import|url\(", page) == []
    for tag, attributes in Reader(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "video", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")


def test_text_of_users_and_models_is_escaped(page: str):
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;quoted&quot;" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;think&gt;one lung is white&lt;/think&gt;" in page


def test_the_table_holds_the_numbers_of_the_evaluation(page: str, demo_folder: Path):
    tree = json.loads((demo_folder / "video" / "evaluation.json").read_text())
    for name in tree["before"]:
        row = re.search(rf'<tr><th scope="row">{name}</th>.*?</tr>', page)
        assert row is not None
        for when in ("before", "after"):
            found = tree[when][name]
            told = f"{number(found['mean'])} [{number(found['low'])}, {number(found['high'])}]"
            assert f'<td class="number">{told}</td>' in row[0]
        pairs = zip(tree["before"][name]["values"], tree["after"][name]["values"], strict=True)
        gain = sum(new - old for old, new in pairs) / 64
        assert f">{'+' if gain > 0 else ''}{number(gain)} [" in row[0]
        assert '<td class="number">64</td>' in row[0]


def test_a_mean_without_an_interval_says_so():
    assert str(Estimate(0.5, math.nan, math.nan)) == "0.500 (no interval)"
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_a_broken_video_of_a_gallery_says_so_and_is_not_shown_as_black(tmp_path: Path):
    sound, broken = torch.rand(2, 3, 8, 8), torch.full((2, 3, 8, 8), torch.nan)
    samples = [VideoSample(Prompt("a red three"), video) for video in (sound, broken)]
    scores = {"reward": torch.tensor([1.0, torch.nan])}
    write_gallery(tmp_path, "after", Evaluation(samples, [1, 2], scores, [0, 1]), 2)
    html = gallery_html(tmp_path)
    assert html.count("<img") == 1
    assert "after: no video, pixels are not finite" in html


def test_the_page_says_what_rose_what_fell_and_what_did_not_move(demo_folder: Path):
    video = {row.name: row for row in changes(read_run(demo_folder / "video"))}
    assert {name: row.verdict for name, row in video.items()} == {
        "reward": "rose",
        "clip_score": "rose",
        "smoothness": "fell",
    }
    assert [name for name, row in video.items() if row.watched] == ["smoothness"]
    vlm = {row.name: row.verdict for row in changes(read_run(demo_folder / "vlm"))}
    assert vlm["accuracy"] == "no clear change"


def test_the_page_and_compare_give_one_verdict(tmp_path: Path):
    """All four prompts rise, which leaves out 0; signs of four alike come by chance in 1 of 8."""
    old, new = [0.0] * 4, [0.3, 0.4, 0.6, 0.7]
    tree = {}
    for when, values in (("before", old), ("after", new)):
        mean, low, high = bootstrap_ci(values)
        told = {"mean": mean, "low": low, "high": high, "n": 4, "values": values}
        tree[when] = {"reward": told}
        rows = [Row(f"q{i}", i, i, {"reward": value}) for i, value in enumerate(values)]
        write_result(tmp_path / "evaluations" / when, Result({}, {}, rows))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "evaluation.json").write_text(json.dumps(tree))
    (change,) = changes(read_run(tmp_path))
    arms = [read_result(tmp_path / "evaluations" / when) for when in ("before", "after")]
    assert change.difference is not None and change.difference.low > 0
    assert change.paired == compare(*arms)[0]
    assert change.verdict == "no clear change"


def test_without_paired_values_intervals_must_be_apart():
    low, middle, high = Estimate(0.2, 0.1, 0.3), Estimate(0.3, 0.2, 0.4), Estimate(0.5, 0.45, 0.6)
    assert Change("a", False, 9, low, high, None).verdict == "rose"
    assert Change("a", False, 9, high, low, None).verdict == "fell"
    assert Change("a", False, 9, low, middle, None).verdict == "no clear change"


def test_headline_failures_marks_config_and_time_are_told(page: str):
    words = " ".join(Reader(page).words)
    assert "Held-out reward rose in 2 of 2 runs" in words
    assert "Training samples that could not be scored: clip_score 3." in words
    assert words.count("\u2713 right") == 3
    assert words.count("\u2717 wrong") == 5
    assert "prompts_per_step: 16" in words
    assert "torch 2.11.0" in words
    assert "1 min 35 s" in words


def test_big_pictures_are_made_small_and_videos_still_move(page: str):
    kinds = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page)
    assert len(kinds) == 2 * 6 + 4
    for kind, text in kinds:
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            assert max(image.size) <= 224
            assert getattr(image, "n_frames", 1) == (8 if kind == "webp" else 1)


def test_a_run_with_nothing_but_metrics_gives_a_page(tmp_path: Path):
    rows = [{"step": step, "reward/mean": step / 10} for step in range(1, 21)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 21, "re')
    write_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "20 training steps" in text
    assert "0.150" in text
    assert "1.950" in text
    assert "Not a held-out comparison" in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no metrics.jsonl"),
        ({"metrics.jsonl": "\n"}, "no step was finished"),
        ({"metrics.jsonl": '{"step": 1}\nbroken\n{"step": 3}\n'}, "metrics.jsonl:2"),
        ({"metrics.jsonl": '{"step": 1}', "evaluation.json": "{"}, "evaluation.json"),
    ],
)
def test_a_broken_folder_is_named(tmp_path: Path, files: dict[str, str], message: str):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_missing_picture_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "gone.webp"))):
        data_uri(tmp_path / "gone.webp")


def test_the_report_needs_no_torch():
    code = "import sys, mmrl.report.page; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
