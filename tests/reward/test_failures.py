"""What a failed call says of itself, and how often."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from mmrl.reward import RewardError, RewardTable, RewardUnavailable
from mmrl.reward.failures import words_of
from mmrl.types import Prompt, TextSample

MINE = """
import json

def key(sample):
    return look_up({}, "zz")

def look_up(table, name):
    return table[name]

def parse(samples):
    return [json.loads(sample.text) for sample in samples]

async def later(sample):
    return sample.missing
"""
SAMPLES = [TextSample(Prompt("q"), text) for text in ("[", "{", "]", "}")]


def table(tmp_path: Path, name: str) -> RewardTable:
    (tmp_path / "mine.py").write_text(MINE)
    return RewardTable.parse({"judge": {"path": f"{tmp_path / 'mine.py'}:{name}"}})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("key", r"KeyError: 'zz' \(mine\.py:8\)"),
        ("parse", r"JSONDecodeError: Expecting .* \(mine\.py:11\)"),
        ("later", r"AttributeError: 'TextSample' object has no attribute .* \(mine\.py:14\)"),
    ],
)
def test_an_error_tells_its_type_and_the_last_line_of_the_users_file(
    tmp_path: Path, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RewardError, match=rf"last failure: {words}$"):
        table(tmp_path, name).score_samples(SAMPLES)
    assert caplog.messages[0].startswith("reward 'judge': error: ")
    assert re.search(words, caplog.messages[0])


def test_what_mmrl_raises_to_be_read_stands_as_it_is() -> None:
    assert words_of(RewardUnavailable("http://x: status 503")) == "http://x: status 503"
    assert words_of(ConnectionError()) == "ConnectionError"


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert words_of(ValueError("a\n  b")) == "ValueError: a b"
    assert len(words_of(ValueError("x" * 10_000))) < 600


def test_a_kind_of_failure_is_logged_once_a_batch_with_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def picky(samples) -> list[float]:
        raise ValueError(json.dumps([sample.text for sample in samples]))

    judge = RewardTable({"judge": picky}, {"judge": 1.0})  # pyright: ignore[reportArgumentType]
    scorer = judge.scorers["judge"]
    scorer.budget.share = 1.0
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            scorer.score(SAMPLES)
    first, rest = caplog.messages[:2]
    assert len(caplog.messages) == 4
    assert first.startswith("reward 'judge': error: ValueError: [")
    assert rest.startswith("reward 'judge', 14 more calls: error: ValueError: [")
