"""GUI actions: what is read from an answer, what a reference must hold, when both agree."""

import json
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from mmrl.data.coordinates import Coordinates, ImageSize
from mmrl.data.gui import (
    ACTIONS,
    ALIASES,
    Action,
    complete,
    libra_metadata,
    parse_action,
    read_reference,
    read_target,
)
from mmrl.data.gui_judge import Verdict, judge, text_f1
from mmrl.types import Prompt

THOUSAND = Coordinates(space="thousand")
RULES: dict[str, Any] = {"radius": 0.05, "threshold": 0.5, "above": False, "border": "half_open"}
BOX = {"bbox_x1": 400, "bbox_y1": 200, "bbox_x2": 600, "bbox_y2": 400, "space": "thousand"}


def answer(**fields: Any) -> str:
    return f"<answer>{json.dumps(fields)}</answer>"


def reference(**metadata: Any):
    return read_reference(Prompt("Open the menu", metadata={**BOX, **metadata}))


def verdict(action: Action, rules: Mapping[str, Any] = RULES, **metadata: Any) -> Verdict:
    return judge(action, reference(**metadata), THOUSAND, **rules)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([500, 300], (500.0, 300.0)),
        ([500.5, 300], (500.5, 300.0)),
        ([-100, -100], None),
        ("none", None),
        (None, None),
        ([500], None),
        ([500, 300, 520, 320], None),
        ([True, False], None),
        (["500", "300"], None),
        ("500, 300", None),
        ([float("nan"), 3], None),
        ([10**400, 3], None),
        ({"x": 1, "y": 2}, None),
    ],
)
def test_a_point_is_two_finite_numbers(point, expected):
    found = parse_action(answer(action_type="Click", value="None", point_2d=point))
    assert found == Action("click", "None", expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no answer",
        "<answer></answer>",
        "<answer>[1, 2]</answer>",
        "<answer>{}</answer>",
        '<answer>{"action_type": 3}</answer>',
        '<answer>{"action_type": "Click"</answer>',
        "<answer>{'action_type': 'Click'}</answer>",
        '<answer>{"action_type": "Click"}',
        '<answer>{"action_type": "Click"}</answer><answer>{"action_type": "Wait"}</answer>',
        "<answer>" + "[" * 100_000 + "</answer>",
        '<answer>{"action_type": "Click", "point_2d": [' + "9" * 5000 + ", 1]}</answer>",
    ],
    ids=range(12),
)
def test_what_holds_no_action_gives_none_and_no_error(text):
    assert parse_action(text) is None
    assert not complete(text)


def test_random_answers_never_raise():
    chooser = random.Random(0)
    letters = '<answer>{"action_type": "Click", "point_2d": [1, 2]}</answer>\\\n'
    for _ in range(2000):
        text = "".join(chooser.choices(letters, k=chooser.randint(0, 80)))
        parse_action(f"<answer>{text}</answer>", salvage=True)
        complete(text)


def test_salvage_reads_fields_out_of_broken_json():
    text = '<answer>{"action_type": "Write", "value": "a \\"b\\"", "point_2d": [5, 3]</answer>'
    assert parse_action(text) is None
    assert parse_action(text, salvage=True) == Action("write", 'a \\"b\\"', (5.0, 3.0))
    assert parse_action("<answer>Click there</answer>", salvage=True) is None


def test_aliases_count_on_both_sides_and_case_does_not():
    for alias, name in ALIASES.items():
        found = parse_action(answer(action_type=alias.upper(), value="x", point_2d=[500, 300]))
        assert found is not None and found.type == name
        assert verdict(found, action_type=name.upper(), value="x").step


def test_an_action_equal_to_its_reference_is_right_for_every_type():
    for name in ACTIONS:
        value = "down" if name in ("scroll", "swipe") else "Two words"
        assert verdict(Action(name, value, (500.0, 300.0)), action_type=name, value=value).step


@pytest.mark.parametrize("name", ["click", "longpress"])
def test_a_required_point_must_be_there_and_inside(name):
    assert not verdict(Action(name), action_type=name).point
    assert not verdict(Action(name, "", (700.0, 300.0)), action_type=name).point
    for x in (400.0, 401.0, 599.9):
        assert verdict(Action(name, "", (x, 300.0)), action_type=name).step
    assert not verdict(Action(name, "", (600.0, 300.0)), action_type=name).step


@pytest.mark.parametrize(
    ("place", "click", "right"),
    [
        ((990, 990), (1000.0, 990.0), True),
        ((990, 990), (1020.0, 990.0), False),
        ((5, 10), (0.0, 10.0), True),
        ((5, 10), (-10.0, 10.0), False),
        ((5, 10), (5.0, -1.0), False),
    ],
)
def test_a_click_outside_the_picture_hits_nothing_however_near(place, click, right):
    metadata = {"action_type": "click", "width": 1000, "height": 1000}
    metadata |= {"point_x": place[0], "point_y": place[1]}
    recorded = read_reference(Prompt("?", metadata=metadata))
    found = judge(Action("click", "", click), recorded, Coordinates(space="pixel"), **RULES)
    assert found.point is right


def test_a_recorded_mark_for_no_point_is_none():
    row = {"gt_action": "scroll", "gt_input_text": "up", "gt_point_2d": [-100, -100]}
    found = read_reference(Prompt("?", metadata=libra_metadata(row)))
    assert found.target.point is None


@pytest.mark.parametrize("name", ["write", "select", "swipe"])
def test_an_optional_point_counts_where_it_is_written_and_the_place_is_known(name):
    given = {"action_type": name, "value": "up"}
    assert verdict(Action(name, "up"), **given).step
    wrong = Action(name, "up", (700.0, 300.0))
    assert verdict(wrong, **given) == Verdict(type=True, value=True, point=False)
    nowhere = read_reference(Prompt("?", metadata=given))
    assert judge(wrong, nowhere, THOUSAND, **RULES).step


@pytest.mark.parametrize(
    ("name", "found", "expected", "right"),
    [
        ("write", "hello x", "hello y", True),
        ("write", "hello x z", "hello y", False),
        ("write", "a", "amazon", False),
        ("write", "", "", True),
        ("answer", "4", "42", False),
        ("answer", "The total is 42.", "42", True),
        ("answer", "The total is 42", "total 42", True),
        ("answer", "it is one or else another two", "two one", False),
        ("openapp", "mail", "Gmail", False),
        ("scroll", "do", "down", False),
        ("scroll", " Down", "down", True),
        ("keyboardpress", "Return", "enter", True),
        ("keyboardpress", "Page Down", "page_down", True),
        ("keyboardpress", "Enter", "Escape", False),
        ("answer", "42", "42.", True),
        ("answer", "It is '42'.", "42.", True),
        ("answer", "It is 42!", "(42)", True),
        ("answer", "about 5", ".5", False),
        ("answer", "...", "42.", False),
        ("wait", "500", "2", False),
        ("wait", "2.0", "2", True),
        ("wait", "2 seconds", "2s", True),
        ("wait", "", "2", False),
        ("wait", "5", "", True),
        ("wait", "5", "None", True),
        ("wait", "a while", "a while", True),
        ("wait", "5", "a while", False),
        ("navigateback", "x", "", True),
    ],
)
def test_how_values_are_compared(name, found, expected, right):
    assert verdict(Action(name, found), action_type=name, value=expected).value is right


def test_an_f1_of_exactly_the_threshold_counts_unless_more_is_asked_for():
    action = Action("write", "hello x")
    given = {"action_type": "write", "value": "hello y"}
    assert verdict(action, **given).value
    assert not verdict(action, {**RULES, "above": True}, **given).value


def test_text_f1_is_symmetric_in_0_1_and_1_on_itself():
    chooser = random.Random(0)
    for _ in range(200):
        one, other = (" ".join(chooser.choices("abcd", k=chooser.randint(0, 6))) for _ in range(2))
        assert 0 <= text_f1(one, other) == text_f1(other, one) <= 1
        assert text_f1(one, one) == 1


def test_text_f1_counts_repeated_words():
    """a a b and a b b share a and b: 2 * 2 / 6."""
    assert text_f1("a a b", "a b b") == pytest.approx(2 / 3)


def test_a_step_is_right_at_most_as_often_as_each_part():
    chooser = random.Random(0)
    found = []
    for _ in range(300):
        point = (chooser.uniform(300, 700), chooser.uniform(100, 500))
        action = Action(chooser.choice(["write", "click"]), chooser.choice("ab"), point)
        found.append(verdict(action, action_type="write", value="a"))
    steps = sum(one.step for one in found)
    assert 0 < steps < min(sum(getattr(one, part) for one in found) for part in ("type", "value"))
    assert steps <= sum(one.point for one in found)


def test_scaling_picture_and_point_together_changes_nothing():
    given = {**BOX, "action_type": "click"}
    for scale in (1, 3, 7):
        space = Coordinates(space="pixel")
        size = {"width": 640 * scale, "height": 480 * scale}
        target = read_reference(Prompt("?", metadata=given | size))
        for point, right in (((256.0, 96.0), True), ((384.0, 96.0), False)):
            x, y = point[0] * scale, point[1] * scale
            assert judge(Action("click", "", (x, y)), target, space, **RULES).step is right


def test_pixel_boxes_become_parts_of_the_picture():
    target = read_target(
        {"bbox_x1": 192, "bbox_y1": 108, "bbox_x2": 384, "bbox_y2": 216, "width": 1920}
        | {"height": 1080, "resized_width": 1288, "resized_height": 728}
    )
    assert target.box is not None
    assert (target.box.x1, target.box.y2) == pytest.approx((0.1, 0.2))
    assert target.resized == ImageSize(1288, 728)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_type": None}, "no action_type"),
        ({"action_type": " "}, "no action_type"),
        ({"action_type": "tap"}, "unknown action_type 'tap'"),
        ({"is_grounding": 1}, "is_grounding must be true or false"),
        ({"is_grounding": "yes"}, "is_grounding must be true or false"),
        ({"bbox_x1": 700}, "x1 <= x2"),
        ({"bbox_y1": 500}, "y1 <= y2"),
        ({"bbox_x2": 1200}, "inside its picture"),
        ({"bbox_x1": -1}, "inside its picture"),
        ({"bbox_x2": None}, "all or none"),
        ({"bbox_x2": "wide"}, "all or none"),
        ({"bbox_x2": math.inf}, "all or none"),
        ({"space": "percent"}, "space must be"),
        ({"width": 0, "height": 10}, "image size must be > 0"),
        ({"space": "pixel"}, "pixel space need the image size"),
        ({"point_x": 5000, "point_y": 5}, "a point must lie inside its picture"),
        ({"point_x": 5, "point_y": -1}, "a point must lie inside its picture"),
        (dict.fromkeys(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")), "needs a box or a point"),
    ],
    ids=str,
)
def test_a_faulty_reference_is_one_clear_error(change, message):
    metadata = {**BOX, "action_type": "click"} | change
    metadata = {name: value for name, value in metadata.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        read_reference(Prompt("Open the menu", metadata=metadata))


def test_a_row_of_the_published_data_becomes_metadata():
    row = {"gt_action": "click", "gt_bbox": [400, 200, 600, 400], "gt_input_text": ""}
    row |= {"image_width": 1080, "image_height": 2400, "is_grounding": False}
    row |= {"image_width_new": 1092, "image_height_new": 2408}
    found = read_reference(Prompt("?", metadata=libra_metadata(row)))
    assert found == read_reference(
        Prompt(
            "?",
            metadata={**BOX, "action_type": "Click", "width": 1080, "height": 2400}
            | {"resized_width": 1092, "resized_height": 2408},
        )
    )
    place = libra_metadata({"gt_action": "click", "gt_point_2d": [0.5, 0.25]})
    assert read_reference(Prompt("?", metadata=place)).target.point == (0.5, 0.25)
