"""Rewards on GUI actions, against what the released functions of GUI-Libra and GUI-G2 gave."""

import json
import math
import time
from pathlib import Path

import pytest

import rewards  # noqa: F401
from mmrl.config import ConfigError
from mmrl.data.gui import libra_metadata
from mmrl.data.gui_judge import text_f1
from mmrl.data.gui_released import text_f1 as released_f1
from mmrl.mixing import weighted_sum
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample
from rewards.gui_click import written_point
from rewards.gui_gaussian import written_box

GOLDEN = Path(__file__).parents[1] / "golden" / "gui_rewards.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]}
STEPS = [name for name, case in CASES.items() if "response" in case["inputs"]]
F1 = [name for name, case in CASES.items() if case["function"] == "calculate_f1_score"]
GAUSSIAN = [name for name in CASES if name.startswith("g2")]
CLICKS = [name for name, case in CASES.items() if case["function"].startswith("click in box")]

WEIGHTS = {"gui_step": 0.9, "gui_format": 0.1}
SCREEN = {"width": 1000, "height": 1000}
UNREADABLE = {"gl011", "gl066"}
"""A box that leaves its picture, and a click without a place: no score, not 0."""
OURS = {
    "gl003": (1.0, 1.0),  # the left border is inside
    "gl010": (1.0, 1.0),  # floats are numbers
    "gl013": (0.0, 0.0),  # booleans are not
    "gl027": (1.0, 1.0),  # two empty texts agree
    "gl032": (1.0, 1.0),  # one of two words, read as written
    "gl036": (1.0, 0.0),  # part of a direction
    "gl043": (1.0, 0.0),  # another key
    "gl044": (1.0, 0.0),  # another time to wait
    "gl046": (1.0, 1.0),  # the answer in a sentence
    "gl057": (0.0, 0.0),  # broken JSON
}
"""Format and accuracy where mmrl differs from the release on purpose."""


def scored(name: str, **fields) -> tuple[float, float]:
    """Format and accuracy."""
    case = CASES[name]
    qwen3 = "qwen3vl" in case["function"]
    space = {"space": "thousand"} if qwen3 else {"space": "resized"}
    sample = TextSample(
        Prompt("?", metadata=libra_metadata(case["inputs"]["ground_truth"])),
        case["inputs"]["response"],
    )
    tag = "thinking" if qwen3 else "think"
    variant = {"variant": fields.get("variant", "fixed")}
    return (
        load_reward("gui_format", tag=tag, **variant)([sample]).item(),
        load_reward("gui_step", coordinates=space, **fields)([sample]).item(),
    )


def total(found: tuple[float, float]) -> float:
    return WEIGHTS["gui_format"] * found[0] + WEIGHTS["gui_step"] * found[1]


@pytest.mark.parametrize("name", [name for name in STEPS if name not in UNREADABLE])
def test_a_step_scored_as_released_equals_the_golden_case(name):
    expected = CASES[name]["output"]["value"]
    found = scored(name, variant="released")
    assert found == (expected["format"], expected["accuracy"])
    assert total(found) == pytest.approx(expected["overall"])


@pytest.mark.parametrize("name", [name for name in STEPS if name not in UNREADABLE])
def test_our_step_differs_from_the_golden_case_only_where_the_release_is_wrong(name):
    case = CASES[name]
    expected = case["output"]["value"]
    found = scored(name)
    assert found == OURS.get(name, (expected["format"], expected["accuracy"]))
    assert round(total(found), 6) in (0, 0.1, 0.9, 1)
    if "sane_expectation" in case:
        assert found[1] == case["sane_expectation"]


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_a_faulty_reference_is_no_score(name):
    with pytest.raises(ValueError, match=r"inside its picture|needs a box or a point"):
        scored(name)


def test_a_strict_border_is_an_option():
    assert scored("gl003", border="strict") == (1.0, 0.0)
    assert scored("gl002", border="strict") == (1.0, 1.0)


def test_salvage_keeps_the_accuracy_of_broken_json():
    assert scored("gl057", salvage=True) == (0.0, 1.0)


def test_the_paper_wants_an_f1_above_a_half_and_the_release_a_half():
    assert scored("gl023") == (1.0, 1.0)
    assert scored("gl023", above=True) == (1.0, 0.0)


def test_a_write_at_a_wrong_place_is_wrong_though_its_text_is_right():
    """Case gl019 with its click outside the box; the release looks at the text alone."""
    case = CASES["gl019"]
    metadata = libra_metadata(case["inputs"]["ground_truth"])
    text = case["inputs"]["response"].replace("[500, 300]", "[700, 300]")
    sample = TextSample(Prompt("?", metadata=metadata), text)
    assert load_reward("gui_step")([sample]).item() == 0
    assert load_reward("gui_step", variant="released")([sample]).item() == 1


@pytest.mark.parametrize("name", F1)
def test_text_f1_of_the_golden_case(name):
    case = CASES[name]
    texts = case["inputs"]["predicted"], case["inputs"]["reference"]
    assert released_f1(*texts) == pytest.approx(case["output"]["value"])
    ours = {"gl081": 0.0, "gl082": 1.0, "gl086": 2 / 3}
    assert text_f1(*texts) == pytest.approx(ours.get(name, case["output"]["value"]))


@pytest.mark.parametrize("name", GAUSSIAN)
def test_gaussian_rewards_of_the_golden_case(name):
    """The release rounds to three decimals; a box without an area scores 0 here."""
    case = CASES[name]
    sides = dict(zip(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), case["inputs"]["gt_box"]))  # noqa: B905
    sample = TextSample(Prompt("?", metadata={**sides, **SCREEN}), case["inputs"]["content"])
    for theirs, ours in (("point", "point"), ("plane", "coverage"), ("format", "format")):
        expected = case["output"]["value"][theirs]["value"]
        if name == "g2007" and ours == "point":
            expected = 0.0
        found = load_reward("gui_gaussian", part=ours, coordinates={"space": "pixel"})([sample])
        assert found.item() == pytest.approx(expected, abs=5e-4)


def test_gaussian_rewards_are_1_on_the_box_and_do_not_change_with_its_scale():
    for part in ("point", "coverage"):
        scores = []
        for scale in (1, 4):
            x = [side * scale for side in (100, 200, 300, 260)]
            metadata = dict(zip(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), x, strict=True))
            metadata |= {"width": 500 * scale, "height": 400 * scale}
            reward = load_reward("gui_gaussian", part=part, coordinates={"space": "pixel"})
            texts = [
                f"[{', '.join(str(side + scale * shift) for side in x)}]" for shift in (0, 30, -30)
            ]
            scores.append(reward([TextSample(Prompt("?", metadata=metadata), t) for t in texts]))
        assert scores[0].tolist() == pytest.approx(scores[1].tolist())
        same, right, left = scores[0].tolist()
        assert same == pytest.approx(1) and 0 < right < 1
        assert right == pytest.approx(left)


@pytest.mark.parametrize("digits", [60, 600, 20_000])
def test_coordinates_of_any_length_are_read_in_one_pass(digits):
    """Four numbers without a bracket at their end, and a pair without one."""
    number = "1" * digits
    start = time.process_time()
    assert written_box(f"[{number},{number},{number},{number}", (1.0, 1.0)) is None
    assert written_point(f"[{number},{number}") is None
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "text", ["[10, 10, 5, 20]", "[1, 2, 3]", "[5, 5, 5, 9]", "[1, 2, 3, 9999]"]
)
def test_no_box_scores_0_and_a_target_without_area_nan(text):
    box = {"bbox_x1": 10, "bbox_y1": 10, "bbox_x2": 50, "bbox_y2": 50, **SCREEN}
    reward = load_reward("gui_gaussian", coordinates={"space": "pixel"})
    assert reward([TextSample(Prompt("?", metadata=box), text)]).item() == 0
    flat = TextSample(Prompt("?", metadata={**box, "bbox_x2": 10}), "[1, 2, 3, 4]")
    assert math.isnan(reward([flat]).item())


@pytest.mark.parametrize("name", CLICKS)
def test_a_click_in_its_box_of_the_golden_case(name):
    case = CASES[name]
    inputs = case["inputs"]
    width, height = inputs["image"]
    names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    metadata = dict(zip(names, inputs["box_px"], strict=True)) | {"width": width, "height": height}
    text = "I cannot see it" if inputs["point"] is None else f"click at {inputs['point']}"
    sample = TextSample(Prompt("?", metadata=metadata), text)
    found = load_reward("gui_click", coordinates={"space": "unit"})([sample]).item()
    assert found == float(case["output"]["value"] == "correct")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(12, 7.5)", (12.0, 7.5)),
        ("at [1,2] or [3,4]", (1.0, 2.0)),
        ('<answer>{"action_type": "Click", "point_2d": [5, 6]}</answer>', (5.0, 6.0)),
        ('[1, 2] <answer>{"action_type": "Wait", "point_2d": "none"}</answer>', None),
        ("12, 7", None),
        ("[1, 2, 3]", None),
    ],
)
def test_where_a_click_is_read(text, expected):
    assert written_point(text) == expected


def test_a_prompt_without_a_box_cannot_be_scored():
    sample = TextSample(Prompt("?", metadata=SCREEN), "[5, 5]")
    for name in ("gui_click", "ssl_click", "gui_gaussian"):
        assert math.isnan(load_reward(name)([sample]).item())


def test_accuracy_and_format_do_not_touch_each_other():
    metadata = libra_metadata(CASES["gl002"]["inputs"]["ground_truth"])
    text = CASES["gl002"]["inputs"]["response"]
    cut = text.replace("<think>I see the button.</think>", "")
    wrong = text.replace("401, 201", "1, 1")
    scores = {
        name: load_reward(name)(
            [TextSample(Prompt("?", metadata=metadata), t) for t in (cut, wrong)]
        )
        for name in ("gui_format", "gui_step")
    }
    assert scores["gui_format"].tolist() == [0, 1]
    assert scores["gui_step"].tolist() == [1, 0]
    mixed = weighted_sum({name: values[:, None] for name, values in scores.items()}, WEIGHTS)
    assert mixed.flatten().tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize(
    ("fields", "key"),
    [({"threshold": 1.5}, "threshold"), ({"radius": 0}, "radius"), ({"border": "wide"}, "border")],
)
def test_a_wrong_field_is_named(fields, key):
    with pytest.raises(ConfigError, match=key):
        load_reward("gui_step", **fields)
