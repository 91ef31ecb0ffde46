"""Numbers, transcriptions and free text against their references, by hand."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from mmrl.data.prompts import DataError
from mmrl.data.text_match import as_number, rouge_mean, same_number, word_error_rate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("0.5", Fraction(1, 2)),
        ("2/4", Fraction(1, 2)),
        (r"\dfrac{3}{4}", Fraction(3, 4)),
        ("1,234", 1234),
        ("12,34", None),
        ("50%", 50),
        ("$5", 5),
        ("12 cm", 12),
        (r"12\text{ cm}", 12),
        ("90°", 90),
        ("\u22123", -3),
        (r"-\frac{1}{2}", Fraction(-1, 2)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        ("-2 1/3", Fraction(-7, 3)),
        ("1e3", 1000),
        ("1.5E-4", Fraction(3, 20000)),
        (r"1.5 \times 10^{3}", 1500),
        ("2\u00d710^-2", Fraction(1, 50)),
        ("98.6 °F", Fraction(493, 5)),
        ("9.8 m/s^2", Fraction(49, 5)),
        ("3 square feet", 3),
        ("60 Miles per hour", 60),
        ("5\\%", 5),
        ("1/0", None),
        ("2 1/0", None),
        ("3 or 4", None),
        ("2pi", None),
        ("3i", None),
        ("5x", None),
        ("10k", None),
        ("5 million", None),
        ("12 apples", None),
        ("12 m m", None),
        ("1e9999", None),
        ("1" * 5000, None),
        ("seven", None),
        ("", None),
    ],
)
def test_a_number_is_read_exactly_or_not_at_all(text: str, value) -> None:
    assert as_number(text) == value


def test_numbers_are_equal_in_value_and_other_references_in_text() -> None:
    assert same_number("0.5", "1/2") and same_number("1/2", "2/4")
    assert not same_number("3.14159", "3.14")
    assert same_number(" x + 1 ", "x + 1") and not same_number("42", "x + 1")
    assert not same_number("", "")


def test_a_number_too_long_to_be_one_is_compared_as_text() -> None:
    assert same_number("1" * 5000, "1" * 5000)
    assert not same_number("1" * 5000, "1")


@pytest.mark.parametrize(
    "text", ["1" * 5000 + "!", "1 " * 20_000, "1/" * 20_000, " " * 20_000 + "x"]
)
def test_reading_takes_one_pass(text: str) -> None:
    start = time.process_time()
    assert as_number(text) is None
    assert time.process_time() - start < 0.5


def test_word_error_rate_by_hand() -> None:
    """One substitution, one insertion and one deletion of four words each."""
    reference = "the quick brown fox"
    assert word_error_rate(reference, reference) == 0
    for answer in ("the quick brown dog", "the very quick brown fox", "the quick fox"):
        assert word_error_rate(answer, reference) == 0.25
    assert word_error_rate("", reference) == 1
    assert word_error_rate("the\nquick\tbrown fox", reference) == 0


def test_rouge_by_hand() -> None:
    """a cat / a cat sits: ROUGE-1 and -L 4/5, ROUGE-2 2/3."""
    assert rouge_mean("a cat", "a cat sits") == pytest.approx((4 / 5 + 2 / 3 + 4 / 5) / 3)
    assert rouge_mean("b a", "a b") == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert rouge_mean("cats", "cat") == 1
    assert rouge_mean("", "cat") == 0
    assert rouge_mean("猫", "猫") == 1


def test_a_reference_without_words_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one word"):
        word_error_rate("x", " ")
    with pytest.raises(DataError, match="at least one word"):
        rouge_mean("x", "!!!")
