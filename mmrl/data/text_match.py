"""How well does a written answer match its reference: as a number, word by word, as free text?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

from rapidfuzz.distance import LCSseq, Levenshtein

from mmrl.data.numbers import UNIT, UNSIGNED
from mmrl.data.prompts import DataError

LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
WRAPPED = re.compile(r"\\(?:boxed|text|mathrm)\{([^{}]*)\}")
DEGREES = re.compile(r"\^\{?\\circ\}?|\\circ|°")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
TIMES = r"(?:\\times|\\cdot|[\u00d7x*\u00b7])"
POWER_OF_TEN = re.compile(rf"(?<!\s)\s*+{TIMES}\s*+10\^\{{?([-+]?\d{{1,3}})\}}?")
VALUE = re.compile(
    r"(?P<sign>[-+]?+)\s*+(?:(?P<whole>\d++)\s++(?=\d++/\d))?+"
    rf"(?P<top>{UNSIGNED})(?:/(?P<bottom>\d++)|(?P<power>[eE][-+]?\d{{1,3}}))?+\s*+(?P<unit>.*)",
    re.DOTALL,
)
LONGEST = 1000
"""Characters of a number; Python refuses to read 4300 digits, and nobody answers with so many."""
WORD = re.compile(r"\w+")


def as_number(text: str) -> Fraction | None:
    """The exact value of a decimal, a fraction a/b or \\frac{a}{b}; None for anything else.

    Exponents count ("1.5e3", "1.5 \\times 10^3"), and so does a whole number before a fraction.
    Dollar signs, thousands commas, boxes, degrees, a percent sign and a known unit behind the
    number do not: "50%" is 50, not 0.5. Other letters make it no number: 2pi, 5x, 10k, 5 million.
    The minus sign U+2212 is a minus.
    """
    plain = text.replace("$", "").replace("\u2212", "-")
    plain = WRAPPED.sub(r" \1", LATEX_FRACTION.sub(r" \1/\2", plain))
    plain = THOUSANDS.sub("", DEGREES.sub("", plain))
    found = VALUE.fullmatch(POWER_OF_TEN.sub(r"e\1", plain).strip())
    if not found or found.start("unit") > LONGEST:
        return None
    if found["unit"] and not UNIT.fullmatch(found["unit"].strip()):
        return None
    bottom = int(found["bottom"] or 1)
    if bottom == 0:
        return None
    size = Fraction(found["top"] + (found["power"] or "")) / bottom + int(found["whole"] or 0)
    return -size if found["sign"] == "-" else size


def same_number(answer: str, reference: str) -> bool:
    """Equal in value, or in text where the reference is no number; an empty answer never is."""
    expected, found = as_number(reference), as_number(answer)
    if expected is not None:
        return found == expected
    return bool(answer.strip()) and answer.strip() == reference.strip()


def word_error_rate(answer: str, reference: str) -> float:
    """(substitutions + deletions + insertions) / words of the reference, split at white space.

    DataError for a reference without words.
    """
    expected, found = reference.split(), answer.split()
    if not expected:
        raise DataError("a transcription needs a reference with at least one word")
    return Levenshtein.distance(found, expected) / len(expected)


def rouge_mean(answer: str, reference: str) -> float:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L over stemmed, case-folded words (Lin, 2004).

    Where neither text has two words there is no ROUGE-2, and the mean is over the other two. Words
    of every script count. DataError for a reference without words.
    """
    expected, found = _stems(reference), _stems(answer)
    if not expected:
        raise DataError(f"free text needs a reference with at least one word, got {reference!r}")
    parts = [
        _ngram_f1(found, expected, 1),
        _f1(LCSseq.similarity(found, expected), found, expected),
    ]
    if max(len(found), len(expected)) > 1:
        parts.append(_ngram_f1(found, expected, 2))
    return math.fsum(parts) / len(parts)


def _stems(text: str) -> list[str]:
    stem = _stemmer().stemWord
    return [stem(word) if len(word) > 3 else word for word in WORD.findall(text.casefold())]


@cache
def _stemmer():
    import snowballstemmer

    return snowballstemmer.stemmer("porter")


def _ngram_f1(found: Sequence[str], expected: Sequence[str], size: int) -> float:
    grams = [
        Counter(zip(*(words[start:] for start in range(size)), strict=False))
        for words in (found, expected)
    ]
    return _f1((grams[0] & grams[1]).total(), list(grams[0].elements()), list(grams[1].elements()))


def _f1(common: int, found: Sequence, expected: Sequence) -> float:
    total = len(found) + len(expected)
    return 2 * common / total if total else 0.0
