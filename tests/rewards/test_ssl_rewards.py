"""Sweet Spot Learning's rewards on clicks and grids."""

import json
import math

import pytest

import rewards  # noqa: F401
from mmrl.config import ConfigError
from mmrl.reward import load_reward
from mmrl.types import Prompt, TextSample

BOX = {"bbox_x1": 400, "bbox_y1": 450, "bbox_x2": 600, "bbox_y2": 550, "space": "thousand"}
SOLUTION = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
PUZZLE = "1 . . .\n. . . .\n2 1 4 3\n4 3 2 1"


def click(x: float, y: float, box: dict = BOX, **fields) -> float:
    action = {"action_type": "Click", "value": "None", "point_2d": [x, y]}
    sample = TextSample(Prompt("?", metadata=box), f"<answer>{json.dumps(action)}</answer>")
    return load_reward("ssl_click", coordinates={"space": "thousand"}, **fields)([sample]).item()


def grid(text: str, puzzle: str | None = PUZZLE, solution: str = SOLUTION) -> float:
    metadata = {} if puzzle is None else {"puzzle": puzzle}
    prompt = Prompt("?", answer=solution, metadata=metadata)
    return load_reward("ssl_grid")([TextSample(prompt, f"<answer>{text}</answer>")]).item()


def test_a_click_gets_its_zone_and_1_in_the_box():
    """S: 1 in the middle, 0.61 and 0.37 near edge and corner, 0.14 at two half sides."""
    assert click(500, 500) == pytest.approx(1.2)
    assert click(599, 500) == pytest.approx(1 + 0.2 * 2 / 3)
    assert click(599, 549) == pytest.approx(1 + 0.2 / 3)
    assert click(601, 500) == pytest.approx(0.2 * 2 / 3)
    assert click(500, 600) == 0
    assert click(-500, 3000) == 0


@pytest.mark.parametrize("levels", ["proximity", "distance", "continuous"])
def test_a_click_beside_the_picture_is_no_near_miss(levels):
    """The box touches the left border: as far to its other side, on the picture, is a near miss."""
    corner = {**BOX, "bbox_x1": 0, "bbox_x2": 200}
    inside, outside = (click(x, 500, corner, levels=levels) for x in (201, -1))
    assert inside > 0.05
    assert outside == 0
    assert click(0, 500, corner, levels=levels) > 1
    assert click(100, 1000.5, {**corner, "bbox_y1": 900, "bbox_y2": 1000}, levels=levels) == 0


def test_zones_by_distance_and_no_zones_are_the_ablations():
    assert click(500, 600, levels="distance") == pytest.approx(0.2 / 3)
    assert click(549, 500, levels="distance") == pytest.approx(1.2)
    assert click(500, 600, levels="continuous") == pytest.approx(0.2 * math.exp(-2))
    assert click(500, 500, alpha=0) == 1


def test_an_answer_without_a_point_scores_0_and_a_flat_target_is_refused():
    prompt = Prompt("?", metadata=BOX)
    reward = load_reward("ssl_click", coordinates={"space": "thousand"})
    assert reward([TextSample(prompt, "there")]).item() == 0
    flat = Prompt("?", metadata={**BOX, "bbox_x2": 400})
    text = '<answer>{"action_type": "Click", "point_2d": [1, 2]}</answer>'
    with pytest.raises(ValueError, match="without area"):
        reward([TextSample(flat, text)])


def test_only_free_cells_of_a_grid_count():
    """Seven cells are free; the given ones are right by themselves."""
    assert grid(SOLUTION) == pytest.approx(1.2)
    assert grid(PUZZLE) == 0
    assert grid(SOLUTION.replace("1 2 3 4", "1 2 3 9")) == pytest.approx(0.2)
    four = "1 2 3 4\n3 9 9 9\n2 1 4 3\n4 3 2 1"
    assert grid(four) == pytest.approx(0.2 * 2 / 3)
    assert grid(four, puzzle=None) == pytest.approx(0.2)


@pytest.mark.parametrize("text", ["1234\n3412\n2143\n4321", "1,2,3,4\n3,4,1,2\n2,1,4,3\n4,3,2,1"])
def test_cells_may_stand_together_or_between_commas(text):
    assert grid(text) == pytest.approx(1.2)


@pytest.mark.parametrize("text", ["", "1 2 3 4", "1 2 3\n3 4 1 2\n2 1 4 3\n4 3 2 1"])
def test_a_grid_of_another_shape_scores_0(text):
    assert grid(text) == 0


def test_a_puzzle_that_does_not_fit_its_solution_is_refused():
    with pytest.raises(ValueError, match="different shapes"):
        grid(SOLUTION, puzzle="1 2\n3 4")
    with pytest.raises(ValueError, match="no free cell"):
        grid(SOLUTION, puzzle=SOLUTION)
    assert math.isnan(load_reward("ssl_grid")([TextSample(Prompt("?"), "x")]).item())


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": -0.1}, "alpha"),
        ({"zones": 1}, "zones"),
        ({"zones": 2.5}, "zones"),
        ({"sigma_scale": 0}, "sigma_scale"),
    ],
)
def test_a_wrong_field_is_named(fields, key):
    with pytest.raises(ConfigError, match=key):
        load_reward("ssl_click", **fields)
