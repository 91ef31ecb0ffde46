"""Pictures come out as upright 8-bit RGB, or not at all."""

import numpy as np
import pytest
from PIL import Image

from mmrl.data.images import load_image
from mmrl.data.prompts import DataError


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.new("L", (4, 3), 77).save(tmp_path / "grey.png")
    found = np.asarray(load_image(tmp_path / "grey.png"))
    assert found.shape == (3, 4, 3) and (found == 77).all()


def test_the_exif_tag_turns_the_picture(tmp_path):
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying, shown turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    found = load_image(tmp_path / "turned.png")
    assert found.size == (2, 4)
    assert found.getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "clear.png")
    found = load_image(tmp_path / "clear.png")
    assert [found.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 0, 0)]


def test_more_than_eight_bits_are_refused_with_the_cure(tmp_path):
    Image.fromarray(np.full((2, 2), 4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png.*window it to 8 bits"):
        load_image(tmp_path / "deep.png")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        load_image(tmp_path / "broken.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        load_image(tmp_path / "gone.png")
