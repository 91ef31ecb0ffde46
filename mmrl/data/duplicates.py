"""Which pictures are the same scene: a perceptual hash that also knows colors and mirror images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt64
from PIL import Image

SIDE = 32
"""Pixels of the square thumbnail a hash is taken from."""
LIMIT = 32
"""Bits of 256 in which the hashes of one scene differ at most. Of 3,166 chest X-rays no two of
different patients lie within 44, but for one picture stored twice; edits of a scan do."""
COLOR_SIDE = 8
"""Cells a side in which colors are compared."""
COLOR_LIMIT = 24
"""Levels of 255 by which Cb and Cr of a cell may differ: what tells a red disc from a blue one."""
BLOCK = 1024
"""Rows compared at a time: what bounds memory."""


def _cosines() -> Float[np.ndarray, "16 32"]:
    """Rows 1 to 16 of the discrete cosine transform: the mean brightness is left out."""
    frequency, place = np.arange(1, 17)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))


COSINES = _cosines()
ODD = np.arange(1, 17) % 2 == 1


class Print(NamedTuple):
    """What is kept of a picture: 160 bytes."""

    bits: UInt64[np.ndarray, " 4"]
    """Signs of the 16 x 16 lowest frequencies of the grey thumbnail without its mean."""
    colors: UInt8[np.ndarray, "8 8 2"]
    """Cb and Cr of an 8 x 8 thumbnail; 128 where the picture is grey."""


class Prints(NamedTuple):
    """The same for N pictures."""

    bits: UInt64[np.ndarray, "N 4"]
    colors: UInt8[np.ndarray, "N 8 8 2"]


def picture_print(image: Image.Image) -> Print:
    """Size, format and brightness leave it nearly alone.

    A mirror image flips the signs of the odd frequencies, and the cells, and nothing else.
    """
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    spectrum = COSINES @ np.asarray(grey, dtype=np.float64) @ COSINES.T
    cells = image.convert("YCbCr").resize((COLOR_SIDE, COLOR_SIDE), Image.Resampling.BOX)
    return Print(_packed(spectrum > 1e-6), np.asarray(cells)[:, :, 1:])


def stack(prints: Sequence[Print]) -> Prints:
    """Prints as one table, also when there are none."""
    bits = np.array([p.bits for p in prints], np.uint64).reshape(len(prints), 4)
    colors = np.array([p.colors for p in prints], np.uint8)
    return Prints(bits, colors.reshape(len(prints), COLOR_SIDE, COLOR_SIDE, 2))


def _packed(bits: Bool[np.ndarray, "16 16"]) -> UInt64[np.ndarray, " 4"]:
    return np.packbits(bits).view(np.uint64)


NONE = np.zeros((16, 16), bool)
MIRRORS = (
    (_packed(NONE), (1, 1)),
    (_packed(NONE ^ ODD[None]), (1, -1)),
    (_packed(NONE ^ ODD[:, None]), (-1, 1)),
    (_packed(ODD[None] ^ ODD[:, None]), (-1, -1)),
)
"""What a mirror image changes: a mask of bits, and the direction of rows and columns of cells."""


def near_pairs(first: Prints, second: Prints, *, limit: int = LIMIT) -> Iterator[tuple[int, int]]:
    """(row of `first`, row of `second`) of the same scene, mirrored or not, in rising order."""
    for start in range(0, len(first.bits), BLOCK):
        block = Prints(*(part[start : start + BLOCK] for part in first))
        close = np.zeros((len(block.bits), len(second.bits)), bool)
        for mask, (rows, columns) in MIRRORS:
            distance = np.zeros(close.shape, np.uint16)
            for word in range(4):
                flipped = (block.bits[:, word] ^ mask[word])[:, None]
                distance += np.bitwise_count(flipped ^ second.bits[None, :, word])
            left, right = np.nonzero(distance <= limit)
            mirrored = block.colors[left, ::rows, ::columns].astype(np.int16)
            gap = np.abs(mirrored - second.colors[right]).max(axis=(1, 2, 3), initial=0)
            close[left[gap <= COLOR_LIMIT], right[gap <= COLOR_LIMIT]] = True
        for row, column in np.argwhere(close):
            yield start + int(row), int(column)


def scenes(prints: Prints, *, limit: int = LIMIT) -> list[int]:
    """For each picture the first picture of its scene: chains of near pictures are one scene."""
    return joined(len(prints.bits), near_pairs(prints, prints, limit=limit))


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` members the smallest member that pairs connect it to."""
    parent = list(range(count))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        parent[high] = low
    return [root(member) for member in range(count)]
