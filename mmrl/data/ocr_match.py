"""How near is what a picture shows in writing to what its prompt asked for?"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from rapidfuzz.distance import Levenshtein

QUOTED = re.compile(r'"([^"]*)"')


def ocr_targets(prompt: str, metadata: Mapping[str, str | int | float]) -> list[str]:
    """What shall be written: `metadata["ocr_target"]`, or every text between two `"`."""
    if "ocr_target" in metadata:
        return [str(metadata["ocr_target"])]
    return QUOTED.findall(prompt)


def ocr_score(recognized: str, target: str) -> float:
    """1 - min(d, len) / len, d the edit distance, 0 where the target stands in the text.

    Spaces and case do not count, accents do. NaN for an empty target (released code of Flow-GRPO
    and Flow-Factory divides by zero).
    """
    text, wanted = (unspaced(one).lower() for one in (recognized, target))
    if not wanted:
        return math.nan
    distance = 0 if wanted in text else Levenshtein.distance(text, wanted)
    return 1 - min(distance, len(wanted)) / len(wanted)


def unspaced(text: str) -> str:
    """Without spaces, in composed Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).replace(" ", "")
