"""Numbers, transcriptions and free text against their references, by hand."""

from __future__ import annotations

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
        ("1/0", None),
        ("3 or 4", None),
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
