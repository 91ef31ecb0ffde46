"""Data sets inside packages: what a split may share, and where the boxes are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mmrl.data.packaged import brain_mri, easy_vqa, emr_recording, gui_grounding
from mmrl.data.prompts import cache_folder, load_prompts
from mmrl.types import Prompt


def sides(folder: Path) -> tuple[list[Prompt], list[Prompt]]:
    train, test = (load_prompts(str(folder / f"{side}.jsonl")) for side in ("train", "test"))
    return train, test


def folder_of(name: str) -> Path:
    if not (cache_folder() / name).is_dir():
        pytest.skip(f"`mmrl data fetch {name}` first")
    return cache_folder() / name


def fetched(name: str) -> tuple[list[Prompt], list[Prompt]]:
    return sides(folder_of(name))


def values(prompts: list[Prompt], key: str) -> set:
    return {prompt.metadata[key] for prompt in prompts}


def noise(seed: int) -> Image.Image:
    """A picture that no other seed resembles."""
    levels = np.random.default_rng(seed).integers(0, 256, (24, 24)).astype(np.uint8)
    return Image.fromarray(levels).resize((96, 80), Image.Resampling.BICUBIC)


def test_near_and_mirrored_copies_of_a_scan_stay_on_one_side(tmp_path: Path) -> None:
    for label in ("yes", "no"):
        (tmp_path / label).mkdir()
    for seed in range(40):
        scan, label = noise(seed), "yes" if seed % 2 else "no"
        scan.save(tmp_path / label / f"{seed}a.jpg", quality=95)
        mirrored = scan.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        ImageEnhance.Brightness(mirrored).enhance(0.5).save(tmp_path / label / f"{seed}b.jpg")
    (tmp_path / "no/copy.jpg").write_bytes((tmp_path / "no/0a.jpg").read_bytes())
    counts = brain_mri.write_prompts(tmp_path)
    train, test = sides(tmp_path)
    assert (counts["scenes"], counts["left out, same bytes as another"]) == (40, 1)
    assert len(train) + len(test) == 80 and len(test) == 2 * counts["scenes held out"] > 0
    number = [{p.images[0].stem.rstrip("abcopy") for p in side} for side in (train, test)]
    assert not number[0] & number[1]


def test_an_easy_question_keeps_its_words_and_knows_its_type(tmp_path: Path) -> None:
    rows = [
        ["is there a circle?", "no", 0],
        ["what color is it?", "teal", 0],
        ["what?", "circle", 0],
    ]
    for side, level in (("train", 10), ("test", 90)):
        (tmp_path / side / "images").mkdir(parents=True)
        noise(level).save(tmp_path / side / "images/0.png")
        (tmp_path / side / "questions.json").write_text(json.dumps(rows))
    counts = easy_vqa.write_prompts(tmp_path)
    assert (counts["train pictures"], counts["color test"]) == (1, 1)
    colors = load_prompts(str(tmp_path / "color_test.jsonl"))
    assert [prompt.answer for prompt in colors] == ["teal"]
    found = [(p.text, p.answer, p.metadata["question_type"]) for p in sides(tmp_path)[1]]
    assert found == [
        ("is there a circle?", "no", "yes or no"),
        ("what color is it?", "teal", "color"),
        ("what?", "circle", "shape"),
    ]


def write_screens(folder: Path, name: str, layouts: list[list[tuple[str, float]]]) -> None:
    samples = []
    (folder / name / "samples").mkdir(parents=True)
    for number, layout in enumerate(layouts):
        file = f"samples/{number}.png"
        noise(hash(str(layout)) % 1000).resize((200, 100)).save(folder / name / file)
        elements = [
            {"bbox": [left, 0.5, 0.25, 0.1], "text": text, "element_type": "button"}
            | {"instruction": f"Click {text}"}
            for text, left in layout
        ]
        samples.append(
            {"id": str(number), "image_path": file, "width": 200, "height": 100}
            | {"metadata": {"difficulty": "easy", "theme": "light"}, "elements": elements}
        )
    (folder / name / "annotations.json").write_text(json.dumps({"samples": samples}))


def test_a_screen_of_the_test_side_leaves_train_and_boxes_are_pixels(tmp_path: Path) -> None:
    shared = [("Save", 0.1), ("Open", 0.5)]
    write_screens(tmp_path, "synthetic", [shared, [("Stop", 0.2), ("Go", 0.5), ("Go", 0.75)]])
    write_screens(tmp_path, "synthetic_hard", [[("Undo", 0.3)], shared])
    counts = gui_grounding.write_prompts(tmp_path)
    train, test = sides(tmp_path)
    assert [p.text for p in train] == ["Click Stop"]  # "Click Go" fits two boxes
    assert [p.text for p in test] == ["Click Undo", "Click Save", "Click Open"]
    assert counts["left out of train, screens of the test side"] == 1
    assert counts["left out, instruction fits several elements"] == 2
    box = [train[0].metadata[f"bbox_{corner}"] for corner in ("x1", "y1", "x2", "y2")]
    assert box == [40, 50, 90, 60]
    assert (train[0].metadata["width"], train[0].metadata["height"]) == (200, 100)


@pytest.mark.real
def test_brain_scans_share_no_scene_between_sides() -> None:
    train, test = fetched("brain_mri")
    assert (len(train), len(test)) == (2384, 615)
    assert not values(train, "scene") & values(test, "scene")
    assert 0.3 < sum(p.answer == "A" for p in test) / len(test) < 0.7
    assert values(test, "modality") == {"MRI"}


@pytest.mark.real
def test_easy_questions_number_as_published() -> None:
    folder = folder_of("easy_vqa")
    counts = json.loads((folder / "source.json").read_text("utf-8"))["counts"]
    published = 38575  # with the questions about near copies of test pictures
    assert 0.98 * published < counts["train"] <= published
    assert (folder / "train.jsonl").read_bytes().count(b"\n") == counts["train"]
    test = load_prompts(str(folder / "test.jsonl"))
    assert len(test) == 9673
    assert Counter(p.answer for p in test).most_common(1) == [("yes", 3611)]


@pytest.mark.real
def test_every_real_box_lies_inside_its_screen_and_no_screen_is_on_both_sides() -> None:
    train, test = fetched("gui_grounding")
    assert (len(train), len(test)) == (1089, 729)
    assert not {p.images[0].read_bytes() for p in train} & {p.images[0].read_bytes() for p in test}
    for prompt in train + test:
        box = {key: value for key, value in prompt.metadata.items() if not isinstance(value, str)}
        assert 0 <= box["bbox_x1"] < box["bbox_x2"] <= box["width"] == 1920
        assert 0 <= box["bbox_y1"] < box["bbox_y2"] <= box["height"] == 1080


@pytest.mark.real
def test_a_recorded_session_is_a_chain_of_next_actions() -> None:
    train, test = fetched("emr_recording")
    kinds = Counter(p.metadata["action_type"] for p in test)
    assert kinds == {"Click": 9, "Write": 4, "Scroll": 4, "KeyboardPress": 1}
    assert len(train) == 11 and values(train, "session").isdisjoint(values(test, "session"))
    for number, prompt in enumerate(test):
        assert prompt.metadata["step"] == number
        assert prompt.text.count("\n") - 2 == max(number, 0) if number else "none" in prompt.text
        if number:
            assert f"{number}. {test[number - 1].metadata['action']}\n" in prompt.text
    assert test[8].images[0].name == "0008_before.png"
    assert (test[8].metadata["point_x"], test[8].metadata["point_y"]) == (17, 443)
    actions = {p.metadata["action"]: p.metadata["value"] for p in test if "value" in p.metadata}
    assert actions["Press Enter"] == "Enter" and actions["Type 'Phil'"] == "Phil"


def test_each_session_has_a_description_for_each_kind_of_event() -> None:
    for session in emr_recording.SESSIONS.values():
        assert all(a.startswith(("Click", "Type", "Press", "Scroll")) for a in session.actions)
