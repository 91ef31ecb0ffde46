"""Statistics: references, coverage of the bootstrap, what NaN does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmrl.evaluate.metrics import (
    bootstrap_ci,
    brier,
    expected_calibration_error,
    paired_difference,
    pass_at_k,
    wilson_interval,
)

CASES = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())


def cases(function: str) -> list[dict]:
    return [case for case in CASES if case["fn"] == function]


@pytest.mark.parametrize("case", cases("pass_at_k"), ids=lambda c: c["id"])
def test_pass_at_k_equals_the_reference(case: dict) -> None:
    assert pass_at_k(**case["in"]) == pytest.approx(case["out"]["pass_at_k"], rel=1e-12)


@pytest.mark.parametrize("case", cases("calibration"), ids=lambda c: c["id"])
def test_calibration_equals_the_reference(case: dict) -> None:
    given = case["in"]
    found = expected_calibration_error(given["prob"], given["correct"], bins=given["bins"])
    assert found == pytest.approx(case["out"]["ece"], rel=1e-12, abs=1e-15)
    assert brier(given["prob"], given["correct"]) == pytest.approx(case["out"]["brier"])


@pytest.mark.parametrize("case", cases("win_rate"), ids=lambda c: c["id"])
def test_wilson_interval_equals_the_reference(case: dict) -> None:
    given, out = case["in"], case["out"]
    if given["ties"] == 0:
        found = wilson_interval(given["wins"], given["wins"] + given["losses"])
        assert found == pytest.approx((out["wilson_low"], out["wilson_high"]), rel=1e-9)


def test_95_percent_intervals_cover_the_mean_about_95_percent_of_the_time() -> None:
    """Samples of one prompt share its difficulty: only the grouped bootstrap is honest."""
    random = np.random.default_rng(0)
    covered = {"grouped": 0, "alone": 0}
    labels = np.repeat(np.arange(40), 4).tolist()
    for seed in range(200):
        values = (np.repeat(random.normal(size=40), 4) + 0.3 * random.normal(size=160)).tolist()
        for name, groups in (("grouped", labels), ("alone", None)):
            _, low, high = bootstrap_ci(values, groups=groups, resamples=400, seed=seed)
            covered[name] += low <= 0 <= high
    assert 0.90 <= covered["grouped"] / 200 <= 0.99
    assert covered["alone"] / 200 < 0.80


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [0.1, 0.5, 0.9, 0.4]
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)


def test_unscored_values_are_left_out_and_nothing_at_all_is_nan() -> None:
    assert bootstrap_ci([1.0, math.nan, 3.0])[0] == 2.0
    assert all(math.isnan(value) for value in bootstrap_ci([math.nan]))


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    before = list(np.random.default_rng(1).normal(size=50))
    after = [value + 0.1 for value in before]
    mean, low, high = paired_difference(before, after)
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([1.0], [1.0, 2.0])
