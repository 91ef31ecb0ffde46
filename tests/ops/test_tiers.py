"""Tiers of Sweet Spot Learning: goldens, order, borders, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.advantages import group_normalized
from mmrl.ops.tiers import distance, distance_levels, proximity, tiered, zone_levels

GOLDEN = Path(__file__).parents[1] / "golden" / "gui_rewards.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]}
TIERED = [name for name, case in CASES.items() if case["function"].startswith("tiered")]
NEAR = [name for name, case in CASES.items() if case["function"].startswith("Gaussian proximity")]
BOX = torch.tensor([[0.4, 0.45, 0.6, 0.55]], dtype=torch.float64)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", TIERED)
def test_zone_and_reward_of_the_golden_case(name):
    inputs, expected = CASES[name]["inputs"], CASES[name]["output"]["value"]
    level = zone_levels(row(inputs["proximity"]), inputs["zones"])
    assert level.item() == pytest.approx(expected["level"], abs=1e-15)
    assert level.item() * (inputs["zones"] - 1) == pytest.approx(expected["zone"])
    found = tiered(row(inputs["correct"]), level, alpha=inputs["alpha"])
    assert found.item() == pytest.approx(expected["reward"], abs=1e-15)


@pytest.mark.parametrize("name", NEAR)
def test_proximity_of_the_golden_case(name):
    inputs, expected = CASES[name]["inputs"], CASES[name]["output"]["value"]
    point, box = row(*inputs["point"])[None], row(*inputs["box"])[None]
    found = distance(point, box, sigma_scale=1.0).square().item()
    assert found == pytest.approx(expected["mahalanobis_sq"], rel=1e-12)
    found = proximity(point, box, sigma_scale=1.0).item()
    assert found == pytest.approx(expected["proximity"], rel=1e-12)


def test_levels_rise_from_0_to_1_in_exactly_k_steps():
    closeness = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for zones in (2, 3, 4, 8):
        levels = zone_levels(closeness, zones)
        assert bool((levels.diff() >= 0).all())
        assert len(levels.unique()) == zones
        assert (levels[0].item(), levels[-1].item()) == (0, 1)


def test_a_border_belongs_to_the_upper_zone():
    assert zone_levels(row(0.25, 0.5, 0.75, 1.0), 4).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert zone_levels(row(math.nextafter(0.5, 0), 0.5), 2).tolist() == [0, 1]


def test_levels_by_distance_have_their_edges_at_half_one_and_two_half_sides():
    found = distance_levels(row(0, 0.5, 0.51, 1, 1.01, 2, 2.01, math.inf), 4)
    assert found.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0])
    assert distance_levels(row(2, 2.01), 2).tolist() == [1, 0]


def test_every_hit_is_above_every_miss_and_the_reward_in_0_to_1_plus_alpha():
    levels = zone_levels(torch.linspace(0, 1, 50, dtype=torch.float64), 4)
    for alpha in (0.0, 0.2, 0.99):
        hits, misses = (tiered(torch.full_like(levels, c), levels, alpha=alpha) for c in (1.0, 0.0))
        assert hits.min() > misses.max()
        assert misses.min() >= 0 and hits.max() <= 1 + alpha
    assert tiered(row(0, 1), row(1, 1), alpha=0).tolist() == [0, 1]


def test_the_middle_is_1_and_mirrored_points_and_scaled_pictures_are_alike():
    assert proximity(row(0.5, 0.5)[None], BOX, sigma_scale=1.0).item() == 1
    for scale in (1, 640):
        left, right = (
            proximity(row(x, y)[None] * scale, BOX * scale, sigma_scale=1.0).item()
            for x, y in ((0.53, 0.48), (0.47, 0.52))
        )
        assert left == pytest.approx(right)
        assert left == pytest.approx(math.exp(-(0.3**2 + 0.4**2) / 2))


def test_edge_and_corner_by_hand_and_a_wider_field():
    points = torch.tensor([[0.6, 0.5], [0.6, 0.55]], dtype=torch.float64)
    boxes = BOX.expand(2, 4)
    found = proximity(points, boxes, sigma_scale=1.0)
    assert found.tolist() == pytest.approx([math.exp(-0.5), math.exp(-1)])
    assert proximity(points, boxes, sigma_scale=2.0).tolist() == pytest.approx(
        [math.exp(-0.125), math.exp(-0.25)]
    )


def test_a_group_of_misses_has_a_signal_where_a_binary_reward_has_none():
    misses = torch.zeros(4, dtype=torch.float64)
    levels = zone_levels(row(0.1, 0.3, 0.6, 0.1), 4)
    assert group_normalized(misses[None]).abs().sum() == 0
    found = group_normalized(tiered(misses, levels, alpha=0.2)[None])[0]
    assert found.argmax().item() == 2
    assert bool((found != 0).all())


@pytest.mark.parametrize("closeness", [1.01, -0.1, math.nan])
def test_a_proximity_outside_0_1_is_refused(closeness):
    with pytest.raises(ValueError, match="outside"):
        zone_levels(row(closeness), 4)


@pytest.mark.parametrize("zones", [1, 0, True])
def test_fewer_than_two_zones_are_refused(zones):
    for levels in (zone_levels, distance_levels):
        with pytest.raises(ValueError, match="whole number >= 2"):
            levels(row(0.5), zones)


def test_other_values_that_have_no_meaning_are_refused():
    with pytest.raises(ValueError, match="alpha must lie in"):
        tiered(row(1), row(1), alpha=1.0)
    with pytest.raises(ValueError, match="alpha must lie in"):
        tiered(row(1), row(1), alpha=-0.1)
    with pytest.raises(ValueError, match="a level lies outside"):
        tiered(row(1), row(1.5), alpha=0.2)
    with pytest.raises(ValueError, match="without area"):
        proximity(row(0.5, 0.5)[None], row(0.5, 0.5, 0.5, 0.6)[None], sigma_scale=1.0)
    with pytest.raises(ValueError, match="sigma_scale must be > 0"):
        proximity(row(0.5, 0.5)[None], BOX, sigma_scale=0.0)
    with pytest.raises(ValueError, match="negative or NaN"):
        distance_levels(row(math.nan), 4)
