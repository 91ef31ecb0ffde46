"""Formats of other projects come out as our prompts; what does not fit is named, never guessed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.data.convert import Summary, convert
from mmrl.data.files import DataError
from mmrl.data.prompts import load_prompts
from mmrl.data.schemas import placed
from mmrl.types import Prompt


def png(level: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (4, 4), level).save(sink, "PNG")
    return sink.getvalue()


def write_json(path: Path, rows: list) -> Path:
    """JSONL or a JSON list, as the name says."""
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]")
    return path


def converted(source: Path, **options) -> list[Prompt]:
    output = source.parent / "out"
    summary = convert(source, output, **options)
    (name,) = summary.prompts
    prompts = load_prompts(str(output / name))
    assert summary.prompts[name] == len(prompts)
    return prompts


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for level in range(3):
        (tmp_path / f"{level}.png").write_bytes(png(level))
    return tmp_path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_llava_turns_become_prompts_that_know_what_was_said(pictures: Path, name: str) -> None:
    talk = [
        {"from": "human", "value": "<image>\nIs there a mass?"},
        {"from": "gpt", "value": "Yes."},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "On the left."},
    ]
    row = {"id": "7", "image": "1.png", "conversations": talk, "model": ""}
    first, second = converted(write_json(pictures / name, [row]))
    assert (first.text, first.answer) == ("Is there a mass?", "Yes.")
    assert second.answer == "On the left."
    assert second.text.splitlines()[-2:] == ["Assistant: Yes.", "User: Where?"]
    assert first.images == second.images and first.images[0].read_bytes() == png(1)
    assert first.metadata == {"id": "7", "model": "", "turn": 0}


def test_an_r1v_solution_gives_its_answer_block(pictures: Path) -> None:
    row = {"image": "2.png", "problem": "Which? A) CT, B) MRI", "solution": "<answer> B </answer>"}
    (found,) = converted(write_json(pictures / "a.json", [row | {"modality": "MRI"}]))
    assert (found.text, found.answer) == ("Which? A) CT, B) MRI", "B")
    assert found.metadata == {"modality": "MRI"}
    assert found.images[0].read_bytes() == png(2)


def test_options_of_a_column_stand_below_the_question(pictures: Path) -> None:
    row = {"path": "0.png", "problem": "Which?", "solution": "<answer>A</answer>"}
    (found,) = converted(write_json(pictures / "a.json", [row | {"options": ["A. x", "B. y"]}]))
    assert found.text == "Which?\nA. x; B. y"


def test_easyr1_marks_are_counted_and_taken_out(pictures: Path) -> None:
    rows = [
        {"problem": "<image>How many?", "answer": 3, "images": ["0.png"]},
        {"problem": "<image> and <image> differ?", "answer": "yes", "images": ["0.png", "1.png"]},
    ]
    one, two = converted(write_json(pictures / "a.jsonl", rows))
    assert (one.text, one.answer) == ("How many?", "3")
    assert two.text == "and [image 2] differ?" and len(two.images) == 2


FINE = {"problem": "x", "solution": "<answer>A</answer>"}
CHAT = [
    {"role": "system", "content": "Think first."},
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "Which? A) CT, B) MRI"}],
    },
]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (CHAT, {"solution": "<think>soft</think><answer>B</answer>"}, "Think first.\nWhich? A) CT"),
        (CHAT[1:], {"answer": "B"}, "Which? A) CT"),
        ("Which? A) CT, B) MRI", {"solution": "B"}, "Which? A) CT"),
        ("Which?", {}, "Which?"),
    ],
)
def test_trl_rows_are_read_as_chat_or_text(
    pictures: Path, prompt: object, answer: dict, expected: str
) -> None:
    row = {"prompt": prompt, "images": ["1.png"], "level": 3, **answer}
    (found,) = converted(write_json(pictures / "a.jsonl", [row]))
    assert found.text.startswith(expected) and "<image>" not in found.text
    assert found.answer == ("B" if answer else None)
    assert found.images[0].read_bytes() == png(1) and found.metadata == {"level": 3}


def test_earlier_turns_of_a_trl_chat_stand_in_its_text(pictures: Path) -> None:
    talk = [("user", "Is there a mass?"), ("assistant", "Yes."), ("user", "Where?")]
    chat = [{"role": role, "content": text} for role, text in talk]
    (found,) = converted(write_json(pictures / "a.jsonl", [{"prompt": chat, "image": "0.png"}]))
    assert found.text == "User: Is there a mass?\nAssistant: Yes.\nUser: Where?"
    source = write_json(pictures / "b.jsonl", [{"prompt": chat[:2]}])
    with pytest.raises(
        DataError, match=r"b\.jsonl:1: field 'prompt': .* ends with the user's turn"
    ):
        convert(source, pictures / "other")


def test_named_columns_make_any_table_readable(pictures: Path) -> None:
    source = write_json(pictures / "a.jsonl", [{"q": "Which?", "img": "2.png", "gt": 4, "id": "x"}])
    with pytest.raises(DataError, match=r"no known format has the columns q, img, .*--columns"):
        convert(source, pictures / "out")
    (found,) = converted(source, columns={"text": "q", "images": "img", "answer": "gt"})
    assert (found.text, found.answer, found.metadata) == ("Which?", "4", {"id": "x"})
    assert found.images[0].read_bytes() == png(2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "nope"}, r"a\.jsonl:1: no column 'nope' \(there: q\)"),
        ({"images": "q"}, "--columns: 'text' is missing from what columns can hold"),
        ({"text": "q", "label": "q"}, "--columns: 'label' is none of what columns can hold"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict, message: str) -> None:
    source = write_json(tmp_path / "a.jsonl", [{"q": "Which?"}])
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "out", columns=columns)


def test_broken_rows_can_be_skipped_and_are_named(pictures: Path) -> None:
    (pictures / "torn.png").write_bytes(png(7)[:30])
    rows = [FINE | {"image": name} for name in ("0.png", "torn.png", "gone.png", "1.png")]
    source = write_json(pictures / "a.jsonl", rows)
    with source.open("a") as file:
        file.write("\n{torn")
    summary = convert(source, pictures / "out", skip_broken=True)
    assert (summary.prompts, summary.pictures) == ({"a.jsonl": 2}, 2)
    places = [reason.split(": ")[0].rsplit(":")[-1] for reason in summary.broken]
    assert places == ["2", "3", "5"] and "gone.png does not exist" in summary.broken[1]
    done = CliRunner().invoke(
        app, ["data", "convert", str(source), f"{pictures}/o", "--skip-broken"]
    )
    assert done.exit_code == 0 and "skipped 3 broken rows:" in done.output
    only = write_json(pictures / "b.jsonl", rows[1:3])
    with pytest.raises(DataError, match=r"b: no row could be read, the last one: .*gone\.png"):
        convert(only, pictures / "other", skip_broken=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nWhat?", "What?"),
        ("What?\n<image>", "What?"),
        ("Compare <image> with <image>.", "Compare [image 1] with [image 2]."),
        ("<image><image> Which?", "Which?"),
        ("no mark", "no mark"),
    ],
)
def test_a_mark_at_an_end_goes_and_one_inside_gets_its_number(text: str, expected: str) -> None:
    assert placed(text) == expected


def test_classes_in_folders_become_multiple_choice(tmp_path: Path) -> None:
    for name, level in (("normal", 1), ("mass", 2)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        (tmp_path / "scans" / name / "a.png").write_bytes(png(level))
    first, second = converted(tmp_path / "scans", question="What is shown?")
    assert first.text == second.text == "What is shown? A) mass, B) normal"
    assert [(p.answer, p.metadata["label"]) for p in (first, second)] == [
        ("A", "mass"),
        ("B", "normal"),
    ]
    assert first.images[0].read_bytes() == png(2)


def test_parquet_shards_with_bytes_become_one_split(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "set/data").mkdir(parents=True)
    for shard in range(2):
        image = {"bytes": png(shard), "path": None}
        rows = [{"question": f"q{shard}", "answer": "yes", "image": image}]
        file = tmp_path / f"set/data/train-0000{shard}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    found = converted(tmp_path / "set", form="parquet")
    assert [p.text for p in found] == ["q0", "q1"]
    assert [p.images[0].read_bytes() for p in found] == [png(0), png(1)]


def test_a_saved_data_set_gives_a_file_a_split_and_labels_by_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.ClassLabel(names=["no", "yes"]),
            "image": datasets.Image(),
            "many": datasets.List(datasets.Value("int32")),
        }
    )
    image = {"bytes": png(5), "path": None}
    rows = {"question": ["a?", "b?"], "answer": [1, 0], "image": [image] * 2, "many": [[1], [2]]}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": part, "test": part.select([1])}).save_to_disk(tmp_path / "set")
    summary = convert(tmp_path / "set", tmp_path / "out", form="hf")
    assert summary == Summary("vqa", {"train.jsonl": 2, "test.jsonl": 1}, 1, summary.left_out)
    assert summary.left_out == {"many": 3}
    train = load_prompts(str(tmp_path / "out/train.jsonl"))
    assert [(p.text, p.answer) for p in train] == [("a?", "yes"), ("b?", "no")]
    assert train[0].images[0].read_bytes() == png(5)


def test_our_own_files_come_out_the_same_twice(pictures: Path) -> None:
    rows = [{"text": "x", "images": ["1.png"], "answer": "A", "metadata": {"modality": "CT"}}]
    source = write_json(pictures / "a.jsonl", rows)
    outputs = [pictures / "one", pictures / "two"]
    for output in outputs:
        convert(source, output)
    files = [
        sorted((f.relative_to(o).as_posix(), f.read_bytes()) for f in o.rglob("*") if f.is_file())
        for o in outputs
    ]
    assert files[0] == files[1] and len(files[0]) == 2
    (found,) = load_prompts(str(outputs[0] / "a.jsonl"))
    assert (found.text, found.answer, dict(found.metadata)) == ("x", "A", {"modality": "CT"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, r"a\.jsonl:2: .*no known format|:2: field 'problem' is missing"),
        ({"problem": "x", "solution": "A"}, ":2: field 'solution': expected one <answer>"),
        (
            {"problem": " ", "solution": "<answer>A</answer>"},
            ":2: field 'problem': expected a text",
        ),
        (FINE | {"image": "no.png"}, r":2: field 'images': .*no\.png does not exist"),
        (FINE | {"image": "http://x/a.png"}, ":2: .* is an address; nothing is downloaded"),
        (FINE | {"image": "broken.png"}, ":2: the picture cannot be read"),
        (FINE | {"problem": "<image>x"}, ":2: field 'problem': 1 <image> marks but 0 pictures"),
        ([1], ":2: expected an object, got list"),
    ],
)
def test_a_wrong_row_is_named_with_its_field_and_nothing_is_left(
    tmp_path: Path, row: object, message: str
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    source = write_json(tmp_path / "a.jsonl", [FINE, row])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([{"from": "human", "value": "x"}], "expected pairs of human and gpt turns"),
        (
            [{"from": "gpt", "value": "x"}, {"from": "human", "value": "x"}],
            "turn 1: expected a text from 'human'",
        ),
        (
            [{"from": "human", "value": "x"}, {"from": "gpt", "value": None}],
            "turn 2: expected a text from 'gpt'",
        ),
    ],
)
def test_a_conversation_out_of_order_is_named(
    tmp_path: Path, conversation: list, message: str
) -> None:
    source = write_json(tmp_path / "a.json", [{"conversations": conversation}])
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "out")


def test_columns_of_two_formats_are_not_guessed_between(tmp_path: Path) -> None:
    source = write_json(tmp_path / "a.json", [FINE | {"answer": "A"}])
    with pytest.raises(DataError, match="fit r1v and easyr1; say --format"):
        convert(source, tmp_path / "out")
    assert converted(source, form="r1v")[0].answer == "A"


@pytest.mark.parametrize(
    ("make", "form", "message"),
    [
        (lambda p: write_json(p / "a.json", []), "auto", "a: the source holds no rows"),
        (lambda p: write_json(p / "a.json", []), "hf", "format hf is a folder"),
        (lambda p: write_json(p / "a.json", []), "parquet", r"needs a name in \.parquet"),
        (lambda p: p / "gone", "auto", "no such file or folder"),
        (lambda p: p, "imagefolder", "2 to 26 folders, one a class, got 0"),
        (lambda p: p, "hf", "no saved data set and no parquet files"),
        (lambda p: p, "r1", r"--format r1: no such format \(known: auto, jsonl"),
    ],
)
def test_a_source_of_another_shape_is_refused(tmp_path: Path, make, form, message: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=message):
        convert(make(tmp_path / "in"), tmp_path / "out", form=form)


def test_an_output_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already"):
        convert(write_json(tmp_path / "a.json", [FINE]), tmp_path / "out")
