"""Windows of screens: the element is in each, where its box says, and no other pixel changed."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mmrl.data.gui import check_references
from mmrl.data.packaged.gui_windows import HEIGHT, WIDTH, start, write_prompts
from mmrl.data.prompts import load_prompts

SCREEN = (640, 360)
BOXES = {"middle": (300, 170, 340, 190), "corner": (0, 0, 30, 20), "end": (600, 330, 640, 360)}


def write_screens(folder: Path, name: str, shift: int) -> None:
    picture = Image.new("RGB", SCREEN, "white")
    elements = []
    for number, (text, (left, y1, right, y2)) in enumerate(BOXES.items()):
        x1, x2 = (x + shift * (text == "middle") for x in (left, right))
        ImageDraw.Draw(picture).rectangle((x1, y1, x2 - 1, y2 - 1), fill=(number + 1, shift, 9))
        box = [x1 / 640, y1 / 360, (x2 - x1) / 640, (y2 - y1) / 360]
        elements.append({"bbox": box, "text": text, "element_type": "button"})
    elements.append({"bbox": [0.1, 0.1, 0.5, 0.1], "text": "wide", "element_type": "button"})
    for element in elements:
        element["instruction"] = f"Click on {element['text']}"
    (folder / name / "samples").mkdir(parents=True)
    picture.save(folder / name / "samples/0.png")
    sample = {"id": name, "image_path": "samples/0.png", "width": 640, "height": 360}
    sample |= {"elements": elements, "metadata": {"difficulty": "easy", "theme": "light"}}
    (folder / name / "annotations.json").write_text(json.dumps({"samples": [sample]}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_screens(tmp_path, "synthetic", 0)
    write_screens(tmp_path, "synthetic_hard", 10)
    return tmp_path


def test_every_window_shows_its_element_where_its_box_is(folder):
    counts = write_prompts(folder)
    assert (counts["train"], counts["test"]) == (9, 3)
    assert counts["left out, element larger than a window"] == 2
    train = load_prompts(str(folder / "train.jsonl"))
    check_references(train)
    for prompt in train:
        box = [int(prompt.metadata[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2")]
        with Image.open(prompt.images[0]) as window:
            assert window.size == (WIDTH, HEIGHT)
            number = list(BOXES).index(prompt.text.split()[-1])
            assert window.crop((box[0], box[1], box[2], box[3])).getcolors() == [
                ((box[2] - box[0]) * (box[3] - box[1]), (number + 1, 0, 9))
            ]
    assert not (folder / "synthetic").exists()


def test_windows_of_an_element_differ_and_are_the_same_again(folder, tmp_path):
    write_prompts(folder)
    boxes = [p.metadata["bbox_x1"] for p in load_prompts(str(folder / "train.jsonl"))]
    assert len(set(boxes[:3])) == 3
    again = tmp_path / "again"
    write_screens(again, "synthetic", 0)
    write_screens(again, "synthetic_hard", 10)
    write_prompts(again)
    assert boxes == [p.metadata["bbox_x1"] for p in load_prompts(str(again / "train.jsonl"))]


def test_a_window_holds_its_span_and_stays_on_the_screen():
    chooser = random.Random(0)
    for _ in range(2000):
        length = chooser.uniform(1, WIDTH - 8)
        first = chooser.uniform(0, 640 - length)
        found = start(first, first + length, WIDTH, 640, chooser)
        assert 0 <= found <= first and first + length <= found + WIDTH <= 640
