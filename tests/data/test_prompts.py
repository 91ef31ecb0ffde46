"""The prompt stream: seeded, complete, and the same wherever it is taken up again."""

from collections import Counter
from pathlib import Path

import pytest

from mmrl.data.prompts import DataError, PromptStream, load_prompts, resolve
from mmrl.types import Prompt

PROMPTS = [Prompt(str(index)) for index in range(7)]


def test_an_epoch_shows_every_prompt_once_and_the_next_in_another_order() -> None:
    stream = PromptStream(PROMPTS, seed=3)
    first, second = stream.take(7), stream.take(7)
    assert Counter(p.text for p in first) == Counter(p.text for p in PROMPTS)
    assert Counter(p.text for p in second) == Counter(p.text for p in PROMPTS)
    assert first != second


def test_a_stream_continues_from_its_epoch_and_position() -> None:
    whole = PromptStream(PROMPTS, seed=3)
    whole.take(5)
    rest = PromptStream(PROMPTS, seed=3, epoch=whole.epoch, position=whole.position)
    assert whole.take(20) == rest.take(20)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", ":2: expected an object, got list"),
        ('{"txt": "x"}', r":2: unknown field 'txt' \(known: text, images, videos, answer, metadata\)"),
        ('{"text": "  "}', ":2: 'text' must be a non-empty string"),
        ('{"text": "x", "images": ["no.png"]}', r":2: image .*no\.png does not exist"),
        ('{"text": "x", "videos": ["no.webp"]}', r":2: video .*no\.webp does not exist"),
    ],
)
def test_a_broken_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        load_prompts(str(path))


def test_recorded_videos_lie_beside_their_file_preferred_first(tmp_path: Path) -> None:
    for name in ("good.webp", "bad.webp"):
        (tmp_path / name).write_bytes(b"")
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "x", "videos": ["good.webp", "bad.webp"]}\n')
    assert load_prompts(str(path))[0].videos == (tmp_path / "good.webp", tmp_path / "bad.webp")


def test_data_that_was_not_fetched_names_the_command(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="run `mmrl data fetch chest_xray` first"):
        resolve("cache:chest_xray/train.jsonl")
