"""Prints of pictures: what leaves them alone, what tells pictures apart, how pairs are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mmrl.data import duplicates
from mmrl.data.duplicates import (
    LIMIT,
    MIRRORS,
    joined,
    near_pairs,
    picture_print,
    scenes,
    stack,
)

FLIPS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
)


def noise(seed: int, *, channels: int = 1) -> Image.Image:
    shape = (24, 24) if channels == 1 else (24, 24, channels)
    levels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return Image.fromarray(levels).resize((160, 128), Image.Resampling.BICUBIC).convert("RGB")


def distance(left: Image.Image, right: Image.Image) -> int:
    bits = [picture_print(image).bits for image in (left, right)]
    return int(np.bitwise_count(bits[0] ^ bits[1]).sum())


def near(left: Image.Image, right: Image.Image) -> bool:
    return bool(list(near_pairs(stack([picture_print(left)]), stack([picture_print(right)]))))


def test_size_format_and_brightness_leave_a_print_nearly_alone() -> None:
    image, sink = noise(0), io.BytesIO()
    image.save(sink, "JPEG", quality=70)
    for edited in (
        image.resize((80, 64)),
        Image.open(sink).convert("RGB"),
        ImageEnhance.Brightness(image).enhance(0.6),
        ImageEnhance.Contrast(image).enhance(0.6),
    ):
        assert distance(image, edited) <= LIMIT // 2
        assert near(image, edited)


def test_other_pictures_differ_in_about_half_of_the_bits() -> None:
    found = [distance(noise(seed), noise(seed + 100)) for seed in range(30)]
    assert min(found) > 2 * LIMIT and 118 < np.mean(found) < 138


@pytest.mark.parametrize(("flip", "mask"), list(zip(FLIPS, MIRRORS[1:], strict=True)))
def test_a_mirror_image_flips_exactly_the_bits_of_its_mask(flip, mask) -> None:
    image = noise(1, channels=3)
    print_, mirrored = picture_print(image), picture_print(image.transpose(flip))
    assert np.bitwise_count(print_.bits ^ mask[0] ^ mirrored.bits).sum() <= 2
    rows, columns = mask[1]
    gap = np.abs(print_.colors[::rows, ::columns].astype(int) - mirrored.colors)
    assert gap.max() <= 1
    assert near(image, image.transpose(flip))


def test_a_quarter_turn_is_another_picture() -> None:
    assert not near(noise(2), noise(2).transpose(Image.Transpose.ROTATE_90).resize((160, 128)))


def test_the_same_figure_in_another_color_is_another_picture() -> None:
    red, blue, grey = (Image.new("RGB", (64, 64), "white") for _ in range(3))
    for image, color in ((red, (200, 0, 0)), (blue, (0, 0, 255)), (grey, (90, 90, 90))):
        image.paste(color, (10, 20, 40, 44))
    assert distance(red, blue) == 0
    assert not near(red, blue) and not near(red, grey)
    assert near(red, red)


def test_pairs_are_those_of_a_comparison_one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    images = [noise(seed) for seed in range(9)]
    images += [images[2].transpose(FLIPS[0]), images[7].resize((90, 70)), images[2]]
    prints = [picture_print(image) for image in images]
    expected = [
        (i, j)
        for i, left in enumerate(prints)
        for j, right in enumerate(prints[:10])
        if any(np.bitwise_count(left.bits ^ m ^ right.bits).sum() <= LIMIT for m, _ in MIRRORS)
    ]
    assert list(near_pairs(stack(prints), stack(prints[:10]))) == expected
    assert {(2, 9), (11, 2), (11, 9), (10, 7)} <= set(expected)


def test_a_chain_of_near_pictures_is_one_scene() -> None:
    assert joined(6, [(4, 3), (1, 3), (5, 0)]) == [0, 1, 2, 1, 1, 0]
    image = noise(3)
    prints = stack([picture_print(p) for p in (noise(4), image, image.transpose(FLIPS[1]))])
    assert scenes(prints) == [0, 1, 1]
    assert scenes(stack([])) == []
