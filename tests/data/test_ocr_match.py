"""Wanted text against read text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from mmrl.data.ocr_match import ocr_score, ocr_targets

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN if c["fn"] == "ocr_reward"], ids=lambda c: c["id"]
)
def test_the_score_of_the_first_wanted_text_equals_the_reference(case: dict) -> None:
    targets = ocr_targets(case["in"]["prompt"], {})
    expected = case["out"]
    if expected["target"] is None:
        assert targets == []
        return
    assert targets[0] == expected["target"]
    found = ocr_score(case["in"]["recognized"], targets[0])
    if expected["reward"] is None:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected["reward"], rel=1e-12)


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN if c["fn"] == "levenshtein"], ids=lambda c: c["id"]
)
def test_the_edit_distance_equals_the_reference(case: dict) -> None:
    assert Levenshtein.distance(case["in"]["a"], case["in"]["b"]) == case["out"]["distance"]


def test_every_quoted_text_is_wanted_and_the_metadata_comes_first() -> None:
    prompt = 'a door "OPEN" and a note "CLOSED"'
    assert ocr_targets(prompt, {}) == ["OPEN", "CLOSED"]
    assert ocr_targets(prompt, {"ocr_target": "EXIT"}) == ["EXIT"]


def test_text_around_a_found_target_never_lowers_the_score() -> None:
    assert ocr_score("Exit", "EXIT") == 1
    assert ocr_score("way out e x i t 24 h", "exit") == 1
    assert ocr_score("", "exit") == 0
