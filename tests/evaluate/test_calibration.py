"""Calibration: references for every kind of error, and a forecaster that is right on average."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmrl.evaluate.calibration import (
    adaptive_calibration_error,
    brier,
    expected_calibration_error,
    max_calibration_error,
    negative_log_likelihood,
    reliability,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/rewards.json").read_text())
CASES = [case for case in GOLDEN if case["fn"] == "calibration"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_every_error_and_every_bin_equals_the_reference(case: dict) -> None:
    given, expected = case["in"], case["out"]
    arguments = (given["prob"], given["correct"])
    bins = given["bins"]
    for name, function in (
        ("ece", expected_calibration_error),
        ("mce", max_calibration_error),
        ("adaptive_ece", adaptive_calibration_error),
    ):
        assert function(*arguments, bins=bins) == pytest.approx(
            expected[name], rel=1e-12, abs=1e-15
        )
    found = [
        [round(b.low * bins), b.count, b.accuracy, b.confidence]
        for b in reliability(*arguments, bins=bins)
    ]
    for row, reference in zip(found, expected["nonempty_bins"], strict=True):
        assert row == pytest.approx(reference, rel=1e-12)


def test_under_perfect_calibration_brier_is_the_outcome_s_variance() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(size=200_000)
    hit = (random.uniform(size=p.size) < p).astype(float)
    assert brier(p.tolist(), hit.tolist()) == pytest.approx(float((p * (1 - p)).mean()), abs=2e-3)
    assert expected_calibration_error(p.tolist(), hit.tolist()) < 5e-3


def test_a_sure_and_wrong_forecast_has_a_finite_likelihood() -> None:
    assert negative_log_likelihood([1.0], [0.0]) == pytest.approx(-np.log(1e-12), rel=1e-3)


def test_a_confidence_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        reliability([1.5], [1.0])
