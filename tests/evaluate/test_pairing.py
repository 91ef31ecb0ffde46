"""Pairs of two evaluations: the same question about the same picture, or a clear no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmrl.config import UserError
from mmrl.evaluate.compare import compare
from mmrl.evaluate.pairing import pair_rows
from mmrl.evaluate.result import Result
from mmrl.evaluate.row import Row, prompt_set

QUESTION = "Is there a tumor?"


def row(score: float, *, picture: str | None = None, answer: str = "yes", **fields) -> Row:
    given = {"seed": 7, "prompt": QUESTION, "group": 0, **fields}
    return Row(scores={"accuracy": score}, pictures=picture, answer=answer, **given)


def files(*names: str, seed: int | None = None) -> list[Row]:
    return [
        Row("a red three", i, seed, {"accuracy": float(i)}, media=f"{names[0]}/{name}")
        for i, name in enumerate(names[1:])
    ]


def scores(pairs: list[tuple[Row, Row]]) -> list[tuple[float, float]]:
    return [(x.score("accuracy"), y.score("accuracy")) for x, y in pairs]


def test_one_question_about_two_pictures_is_two_prompts_whatever_the_order() -> None:
    before = [row(0.0, picture="a"), row(1.0, picture="b")]
    after = [row(0.25, picture="b"), row(0.75, picture="a")]
    assert scores(pair_rows(before, after)) == [(0.0, 0.75), (1.0, 0.25)]


@pytest.mark.parametrize(
    "other", [{"picture": "c"}, {"picture": None}, {"picture": "b", "answer": "no"}]
)
def test_another_picture_or_answer_is_another_prompt_set(other: dict) -> None:
    before = [row(0.0, picture="a"), row(1.0, picture="b")]
    after = [row(0.0, picture="a"), row(1.0, **other)]
    assert prompt_set(before) != prompt_set(after)
    with pytest.raises(UserError, match=r"not the same prompts \(.*such as 'Is there a tumor\?'"):
        pair_rows(before, after)


def test_other_seeds_of_the_same_prompts_are_told_apart_from_other_prompts() -> None:
    with pytest.raises(UserError, match=r"the same prompts, but not the same seeds.*: 1 samples"):
        pair_rows([row(0.0)], [row(0.0, seed=8)])


def test_files_of_one_prompt_are_paired_by_name_and_not_by_order() -> None:
    before, after = files("x", "b.mp4", "a.mp4"), files("y", "a.mp4", "b.mp4")
    assert scores(pair_rows(before, after)) == [(0.0, 1.0), (1.0, 0.0)]


@pytest.mark.parametrize("names", [("a.mp4", "c.mp4"), ("a.mp4", "a.mp4")])
def test_files_that_no_name_pairs_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="2 files of the prompt 'a red three' have no seed"):
        pair_rows(files("x", "a.mp4", "b.mp4"), files("y", *names))


def test_answers_to_one_question_without_seeds_are_paired_by_their_place() -> None:
    before = [row(float(i), seed=None, media="scan.png") for i in range(3)]
    after = [replace(one, scores={"accuracy": 9.0 - i}) for i, one in enumerate(before)]
    assert scores(pair_rows(before, after)) == [(0.0, 9.0), (1.0, 8.0), (2.0, 7.0)]


def test_a_comparison_of_files_counts_each_as_a_unit_of_its_own() -> None:
    before, after = files("x", *"abcdefgh"), files("y", *"abcdefgh")
    (found,) = compare(Result({}, {}, before), Result({}, {}, after))
    assert (found.units, found.difference, found.verdict) == (8, 0.0, "no clear change")
