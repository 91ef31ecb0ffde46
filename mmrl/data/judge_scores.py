"""What a judge wrote, read as a number: one clear score, or none at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmrl.data.answers import ANSWER

FINAL_SCORE = re.compile(
    r"final\s+score\**\s*:\s*\**\s*"
    r"(?P<score>[+-]?\d+(?:\.\d+)?)(?!\w|[.,]\d)(?!\s*(?:-|\u2013|to\b|or\b)\s*\d)"
    r"(?:\s*/\s*(?P<top>\d+(?:\.\d+)?))?",
    re.IGNORECASE,
)
SCORE_TAG = re.compile(r"<score>(.*?)</score>", re.IGNORECASE | re.DOTALL)
DIGITS = frozenset("0123456789.")


@dataclass(frozen=True)
class Reading:
    """A score in the judge's own unit; NaN, and why, where it gave none."""

    score: float
    text: str
    """What the judge wrote, unchanged."""
    problem: str = ""
    """`no score`, `several scores` or `out of range`; empty where there is a score."""


def read_answer_score(text: str, *, grid: bool = False) -> Reading:
    """One plain decimal number in [0, 1]: the answer block's whole content, or the whole text.

    No sign, exponent, comma, fraction or word may stand beside it. `grid` rounds to tenths. Several
    answer blocks are several scores. SophiaVL-R1's code takes the first stand-alone 0 or 1 instead,
    so "Step 1 is wrong, overall 0.4" scores 1 there and "0.85" scores 0 (arXiv:2505.17018).
    """
    blocks = ANSWER.findall(text)
    if len(blocks) > 1:
        return Reading(math.nan, text, "several scores")
    score = _plain_number(blocks[0] if blocks else text)
    found = _checked(text, score, low=0, high=1)
    return Reading(round(found.score, 1), text) if grid and not found.problem else found


def read_final_score(text: str, *, last: bool = False) -> Reading:
    """The number after "Final Score:", from 1 to 5, "/5" allowed (UnifiedReward, 2503.05236).

    Several final scores abstain unless they agree or `last` says which one counts. The released
    pattern has no right boundary: it reads 3 from "35".
    """
    matches = list(FINAL_SCORE.finditer(text))
    if any(match["top"] and float(match["top"]) != 5 for match in matches):
        return Reading(math.nan, text, "out of range")
    return _one_of(text, [float(match["score"]) for match in matches], last=last)


def read_score_tag(text: str, *, last: bool = False) -> Reading:
    """The plain number inside `<Score> </Score>`, from 1 to 5 (Flow-Factory's aesthetic judge)."""
    scores = [_plain_number(content) for content in SCORE_TAG.findall(text)]
    return _one_of(text, scores, last=last)


def yes_probability(log_prob_yes: float | None, log_prob_no: float | None) -> float:
    """sigmoid(log p(yes) - log p(no)); None is an answer outside the judge's likeliest tokens.

    One None is certainty of the other answer, two are NaN (Flow-Factory's code has 0 there).
    """
    if log_prob_yes is None and log_prob_no is None:
        return math.nan
    yes = -math.inf if log_prob_yes is None else log_prob_yes
    no = -math.inf if log_prob_no is None else log_prob_no
    if yes == no:
        return math.nan if math.isinf(yes) else 0.5
    gap = no - yes
    return math.exp(-gap) / (1 + math.exp(-gap)) if gap > 0 else 1 / (1 + math.exp(gap))


def pooled_log_prob(first_token: Mapping[str, float], word: str) -> float | None:
    """log of the summed probability of every spelling of `word`: case and white space aside."""
    found = [value for token, value in first_token.items() if token.strip().casefold() == word]
    if not found:
        return None
    best = max(found)
    return best + math.log(sum(math.exp(value - best) for value in found))


def _one_of(text: str, scores: list[float], *, last: bool) -> Reading:
    if len(set(scores)) > 1 and not last:
        return Reading(math.nan, text, "several scores")
    return _checked(text, scores[-1] if scores else math.nan, low=1, high=5)


def _checked(text: str, score: float, *, low: float, high: float) -> Reading:
    if math.isnan(score):
        return Reading(score, text, "no score")
    inside = low <= score <= high
    return Reading(score, text) if inside else Reading(math.nan, text, "out of range")


def _plain_number(text: str) -> float:
    """The text as a decimal number without sign or exponent; NaN where it is anything else."""
    digits = text.strip()
    plain = bool(digits) and set(digits) <= DIGITS and digits.count(".") <= 1 and digits != "."
    return float(digits) if plain else math.nan
