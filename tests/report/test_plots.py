"""Plots are well-formed, say the numbers they were given, and survive hostile names."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from mmrl.report.plots import Series, interval_plot, line_plot, thin, ticks


def parsed(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure)


def test_a_line_plot_is_well_formed_and_labelled():
    figure = line_plot("KL & <co>", [Series('a<b"', [1, 2, 3], [0.1, 0.2, 0.4], [0.1, 0.1, None])])
    svg = parsed(figure).find("svg")
    assert svg is not None
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == 'KL & <co>: a<b" from 0.1 at step 1 to 0.4 at step 3'


def test_every_point_tells_its_values_when_pointed_at():
    figure = line_plot("kl", [Series("a", [1, 2], [0.125, 0.25]), Series("b", [1, 2], [3, 4])])
    told = [title.text for title in parsed(figure).iter("title")]
    assert told == ["step 1: a 0.125, b 3", "step 2: a 0.25, b 4"]


def test_higher_values_are_drawn_higher_and_later_steps_further_right():
    line = parsed(line_plot("x", [Series("a", [1, 2, 3], [0.0, 1.0, 3.0])])).find(".//polyline")
    assert line is not None
    points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
    across, down = zip(*points, strict=True)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down, reverse=True)
    assert (down[1] - down[2]) == pytest.approx(2 * (down[0] - down[1]), abs=0.05)


def test_a_missing_value_breaks_the_line_and_is_never_drawn_as_zero():
    figure = line_plot("x", [Series("a", [1, 2, 3, 4, 5], [5.0, 6.0, None, math.nan, 7.0])])
    root = parsed(figure)
    assert len(root.findall(".//polyline")) == 1
    assert len(root.findall(".//circle")) == 1
    assert "step 3" not in re.sub(r'aria-label="[^"]*"', "", figure)


@pytest.mark.parametrize("values", [[], [None, None], [math.nan, math.inf]])
def test_nothing_to_draw_gives_no_plot(values: list[float | None]):
    assert line_plot("x", [Series("a", list(range(len(values))), values)]) == ""


@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0], [1e-12, 2e-12], [-1e9, 1e9], [5.0, None]])
def test_degenerate_ranges_stay_finite(values: list[float | None]):
    figure = line_plot("x", [Series("a", list(range(len(values))), values)])
    parsed(figure)
    assert "nan" not in figure
    assert "inf" not in figure


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, ["-1", "-0.5", "0", "0.5", "1"]), (2.0, ["1.9", "2", "2.1"])]
)
def test_a_constant_has_an_axis_of_sensible_numbers(value: float, expected: list[str]):
    root = parsed(line_plot("x", [Series("a", [1, 2, 3], [value] * 3)]))
    side = [text.text for text in root.iter("text") if text.get("text-anchor") == "end"]
    assert [told for told in side if told in expected] == expected


def test_an_interval_plot_states_mean_and_interval():
    root = parsed(interval_plot("m", [("before", 0.4, 0.3, 0.5), ("after", 0.7, 0.6, 0.8)]))
    told = [title.text for title in root.iter("title")]
    assert told == ["0.4 [0.3, 0.5]", "0.7 [0.6, 0.8]"]
    assert interval_plot("m", [("before", math.nan, 0.0, 1.0)]) == ""


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.5, 1.0]
    assert ticks(0.13, 0.87) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(1, 3, 5, whole=True) == [1, 2, 3]
    assert ticks(1e-12, 4e-12) == [1e-12, 2e-12, 3e-12, 4e-12]


def test_a_long_run_is_drawn_by_means_of_neighbours():
    short = thin(Series("a", range(1, 9), [1, 3, None, 5, None, None, 2, 4]), limit=4)
    assert list(short.steps) == [2, 4, 6, 8]
    assert list(short.values) == [2, 5, None, 3]


def test_small_and_large_ticks_are_written_short():
    figure = line_plot("lr", [Series("lr", [1, 2], [2.9e-4, 3.1e-4])])
    assert {"2.9e-4", "0.0003"} <= {text.text for text in parsed(figure).iter("text")}
