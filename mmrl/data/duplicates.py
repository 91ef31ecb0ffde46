"""Which pictures are the same scene: a perceptual hash that also knows mirror images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt64
from PIL import Image

SIDE = 32
"""Pixels of the square thumbnail a hash is taken from."""
LIMIT = 32
"""Bits of 256 in which the hashes of one scene differ at most. Of 3,166 chest X-rays no two of
different patients lie within 44, but for one picture stored twice; edits of a scan do."""
BLOCK = 1024
"""Rows compared at a time: what bounds memory."""


def _cosines() -> Float[np.ndarray, "16 32"]:
    """Rows 1 to 16 of the discrete cosine transform: the mean brightness is left out."""
    frequency, place = np.arange(1, 17)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))


COSINES = _cosines()
ODD = np.arange(1, 17) % 2 == 1


def picture_hash(image: Image.Image) -> UInt64[np.ndarray, " 4"]:
    """Signs of the 16 x 16 lowest frequencies of the grey thumbnail without its mean: 256 bits.

    Size, format and brightness leave it nearly alone. A mirror image flips the signs of the odd
    frequencies and nothing else.
    """
    thumbnail = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    spectrum = COSINES @ np.asarray(thumbnail, dtype=np.float64) @ COSINES.T
    return _packed(spectrum > 1e-6)


def _packed(bits: Bool[np.ndarray, "16 16"]) -> UInt64[np.ndarray, " 4"]:
    return np.packbits(bits).view(np.uint64)


MIRRORS = {
    "same": _packed(np.zeros((16, 16), bool)),
    "left-right": _packed(np.broadcast_to(ODD[None], (16, 16))),
    "upside down": _packed(np.broadcast_to(ODD[:, None], (16, 16))),
    "half a turn": _packed(ODD[None] ^ ODD[:, None]),
}
"""What a mirror image changes of a hash, as a mask of bits."""


def near_pairs(
    first: UInt64[np.ndarray, "N 4"], second: UInt64[np.ndarray, "M 4"], *, limit: int = LIMIT
) -> Iterator[tuple[int, int]]:
    """(row of `first`, row of `second`) within `limit` bits, mirrored or not, in rising order."""
    for start in range(0, len(first), BLOCK):
        block = first[start : start + BLOCK]
        close = np.zeros((len(block), len(second)), bool)
        for mask in MIRRORS.values():
            distance = np.zeros(close.shape, np.uint16)
            for word in range(4):
                flipped = (block[:, word] ^ mask[word])[:, None]
                distance += np.bitwise_count(flipped ^ second[None, :, word])
            close |= distance <= limit
        for row, column in np.argwhere(close):
            yield start + int(row), int(column)


def scenes(hashes: UInt64[np.ndarray, "N 4"], *, limit: int = LIMIT) -> list[int]:
    """For each picture the first picture of its scene: chains of near pictures are one scene."""
    return joined(len(hashes), near_pairs(hashes, hashes, limit=limit))


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


def stack(hashes: Sequence[UInt64[np.ndarray, " 4"]]) -> UInt64[np.ndarray, "N 4"]:
    """Hashes as one table, also when there are none."""
    return np.array(hashes, np.uint64).reshape(len(hashes), 4)
