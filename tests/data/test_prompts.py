"""The prompt stream: seeded, complete, and the same wherever it is taken up again."""

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

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
        (
            '{"txt": "x"}',
            r":2: unknown field 'txt' \(known: text, images, videos, answer, metadata\)",
        ),
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


def png(level: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (4, 4), level).save(sink, "PNG")
    return sink.getvalue()


def test_several_files_come_one_after_the_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    names = [str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]
    assert [p.text for p in load_prompts(names)] == ["b", "a"]
    assert load_prompts(", ".join(names)) == load_prompts(names)
    assert load_prompts(names[0]) == [Prompt("b")]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    line = json.dumps({"text": "one\u2028two\u0085three"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_text(line + "\n", encoding="utf-8")
    assert load_prompts(str(tmp_path / "a.jsonl"))[0].text == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"text": "x", "images": "a.png"}, "'images' must be a list, got 'a.png'"),
        ({"text": "x", "answer": ["A"]}, "'answer' must be a text or a number"),
        ({"text": "x", "metadata": "MRI"}, "'metadata' must be an object, got 'MRI'"),
        ({"text": "x", "images": [3]}, "an image must be a path or bytes, got 3"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(entry: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(entry))
    with pytest.raises(DataError, match=message):
        load_prompts(str(tmp_path / "a.jsonl"))


def test_pictures_inside_a_parquet_file_go_to_the_cache_once(monkeypatch, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "beside.png").write_bytes(png(9))
    rows = [
        {"text": "a", "images": [{"bytes": png(1), "path": "x.png"}], "answer": "A"},
        {"text": "b", "images": [{"bytes": png(1), "path": "y.png"}], "metadata": {"slice": 3}},
        {"text": "c", "images": [{"bytes": None, "path": "beside.png"}]},
    ]
    names = ["text", "images", "answer", "metadata"]
    table = pyarrow.Table.from_pydict({name: [row.get(name) for row in rows] for name in names})
    parquet.write_table(table, tmp_path / "a.parquet")
    prompts = load_prompts(str(tmp_path / "a.parquet"))
    assert [(p.text, p.answer) for p in prompts] == [("a", "A"), ("b", None), ("c", None)]
    assert prompts[0].images == prompts[1].images and prompts[1].metadata == {"slice": 3}
    assert prompts[0].images[0].read_bytes() == png(1)
    assert prompts[2].images == (tmp_path / "beside.png",)
    assert [file.suffix for file in (tmp_path / "cache/images").iterdir()] == [".png"]


def test_a_broken_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"text": "fine"}, {"text": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row 2: 'text' must be a non-empty string"):
        load_prompts(str(tmp_path / "a.parquet"))
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"b\.parquet: not a parquet file"):
        load_prompts(str(tmp_path / "b.parquet"))
