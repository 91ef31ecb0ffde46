"""How well does a written answer match its reference: as a number, word by word, as free text?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

from rapidfuzz.distance import LCSseq, Levenshtein

from mmrl.data.prompts import DataError

LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
WRAPPED = re.compile(r"\\(?:boxed|text|mathrm)\{([^{}]*)\}")
DEGREES = re.compile(r"\^\{?\\circ\}?|\\circ|°")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
NUMBER = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:/\d+)?)\s*(?:%|\\%|[a-zA-Z]+[23]?)?")
WORD = re.compile(r"\w+")


def as_number(text: str) -> Fraction | None:
    """The exact value of a decimal, a fraction a/b or \\frac{a}{b}; None for anything else.

    Dollar signs, thousands commas, boxes, degrees, a percent sign and a unit behind the number do
    not count: "50%" is 50, not 0.5. The minus sign U+2212 is a minus.
    """
    plain = text.replace("$", "").replace("\u2212", "-")
    plain = WRAPPED.sub(r" \1", LATEX_FRACTION.sub(r"\1/\2", plain))
    plain = THOUSANDS.sub("", DEGREES.sub("", plain)).strip()
    found = NUMBER.fullmatch(plain)
    if not found:
        return None
    top, _, bottom = found["number"].partition("/")
    return None if bottom and int(bottom) == 0 else Fraction(top) / Fraction(bottom or 1)


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
