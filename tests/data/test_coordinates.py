"""Coordinate spaces: round trips, the sizes of the real processors, boxes and what they refuse."""

import random

import pytest
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs

from mmrl.config import ConfigError, parse
from mmrl.data.coordinates import Box, Coordinates, ImageSize, smart_resize

SIZES = [(1920, 1080), (1080, 2400), (384, 216), (30, 31), (5000, 40), (1, 1), (7680, 4320)]
BOUNDS = [(3136, 1003520), (3136, 12845056), (65536, 16777216), (3136, 35280)]


def sizes(count: int) -> list[tuple[int, int]]:
    chooser = random.Random(0)
    drawn = [(chooser.randint(1, 4000), chooser.randint(1, 4000)) for _ in range(count)]
    return SIZES + [one for one in drawn if max(one) / min(one) <= 200]


@pytest.mark.parametrize("factor", [28, 32])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_smart_resize_is_that_of_the_processors(factor, bounds):
    for width, height in sizes(300):
        found = smart_resize(
            ImageSize(width, height), factor=factor, min_pixels=bounds[0], max_pixels=bounds[1]
        )
        expected = theirs(height, width, factor, *bounds)
        assert (found.height, found.width) == expected


@pytest.mark.parametrize(("factor", "patch"), [(28, 14), (32, 16)])
def test_the_frame_is_the_picture_that_the_image_processor_makes(factor, patch):
    from PIL import Image

    size = {"shortest_edge": 3136, "longest_edge": 100_000}
    processor = Qwen2VLImageProcessor(size=size, patch_size=patch)
    space = Coordinates(factor=factor, min_pixels=3136, max_pixels=100_000)
    for width, height in [(384, 216), (100, 300), (1024, 768)]:
        picture = Image.new("RGB", (width, height))
        [[_, rows, columns]] = processor(picture, return_tensors="pt")["image_grid_thw"].tolist()
        assert space.frame(ImageSize(width, height)) == (columns * patch, rows * patch)


@pytest.mark.parametrize("space", ["unit", "thousand", "pixel", "resized"])
@pytest.mark.parametrize("factor", [28, 32])
def test_a_point_comes_back_from_every_space(space, factor):
    chooser = random.Random(1)
    coordinates = Coordinates(space=space, factor=factor)
    for width, height in sizes(50):
        size = ImageSize(width, height)
        point = (chooser.random(), chooser.random())
        written = coordinates.from_unit(point, size)
        assert coordinates.to_unit(written, size) == pytest.approx(point, abs=1e-12)
        assert coordinates.to_unit(coordinates.frame(size), size) == (1.0, 1.0)


def test_frames_by_hand():
    size = ImageSize(1920, 1080)
    assert Coordinates(space="pixel").frame(size) == (1920, 1080)
    assert Coordinates(space="thousand").frame() == (1000, 1000)
    assert Coordinates(space="resized").frame(size, ImageSize(1288, 728)) == (1288, 728)
    assert Coordinates(max_pixels=28 * 28 * 16384).frame(size) == (1932, 1092)
    assert Coordinates(factor=32, max_pixels=2**24).frame(size) == (1920, 1088)


def test_a_whole_number_in_one_space_is_never_next_to_its_box_in_another():
    """0.6 of 1920 pixels is on the border of a box that ends at 600 of 1000, bit for bit."""
    box = Coordinates(space="thousand").box((400, 200, 600, 400))
    for width in range(5, 4000, 5):
        point = Coordinates(space="pixel").to_unit((width * 3 // 5, 0), ImageSize(width, 1))
        assert (point[0] == box.x2) == (width * 3 % 5 == 0)


def test_the_borders_of_a_box():
    box = Box(0.2, 0.2, 0.6, 0.6)
    inside = {"half_open": (True, False), "strict": (False, False), "inclusive": (True, True)}
    for border, (low, high) in inside.items():
        assert box.holds((0.4, 0.4), border)
        assert (box.holds((0.2, 0.4), border), box.holds((0.6, 0.4), border)) == (low, high)
        assert (box.holds((0.4, 0.2), border), box.holds((0.4, 0.6), border)) == (low, high)
        assert not box.holds((0.7, 0.4), border)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((0.6, 0.2, 0.4, 0.4), "x1 <= x2"),
        ((0.2, 0.6, 0.4, 0.4), "y1 <= y2"),
        ((-0.1, 0.2, 0.4, 0.4), "inside its picture"),
        ((0.1, 0.2, 1.4, 0.4), "inside its picture"),
        ((0.1, 0.2, float("nan"), 0.4), "inside its picture"),
    ],
)
def test_an_impossible_box_is_named(sides, message):
    with pytest.raises(ValueError, match=message):
        Box(*sides)


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_an_image_without_an_area_is_named(size):
    with pytest.raises(ValueError, match="image size must be > 0"):
        ImageSize(*size)


@pytest.mark.parametrize("space", ["pixel", "resized"])
def test_pixels_without_an_image_size_are_an_error(space):
    with pytest.raises(ValueError, match=f"{space} space need the image size"):
        Coordinates(space=space).to_unit((1.0, 1.0))


def test_a_picture_too_narrow_for_the_processors_is_refused_as_they_do():
    with pytest.raises(ValueError, match="too narrow"):
        smart_resize(ImageSize(4020, 20), factor=28, min_pixels=3136, max_pixels=10**6)


def test_bounds_in_the_wrong_order_are_named():
    with pytest.raises(ConfigError, match="min_pixels"):
        parse(Coordinates, {"min_pixels": 100, "max_pixels": 10})
