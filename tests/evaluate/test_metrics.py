"""Statistics: references, coverage of the bootstrap, what NaN does."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmrl.evaluate import metrics
from mmrl.evaluate.metrics import (
    bootstrap_ci,
    brier,
    expected_calibration_error,
    matthews_correlation,
    mean_pass_at_k,
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


def test_the_mean_over_tasks_of_pass_at_k_equals_the_reference() -> None:
    (case,) = cases("pass_at_k_mean")
    given = case["in"]
    found = [pass_at_k(n, c, given["k"]) for n, c in zip(given["n"], given["c"], strict=True)]
    assert float(np.mean(found)) == pytest.approx(case["out"]["mean"], rel=1e-12)


def test_pass_at_k_by_hand_and_growing_in_k_and_c() -> None:
    """One right of four: half of all pairs hold it."""
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    for c in range(9):
        assert pass_at_k(8, c, 1) == pytest.approx(c / 8)
        chances = [pass_at_k(8, c, k) for k in range(1, 9)]
        assert chances == sorted(chances)
        assert c == 8 or all(pass_at_k(8, c, k) <= pass_at_k(8, c + 1, k) for k in range(1, 9))
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(4, 1, 5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_0_to_the_first() -> None:
    """Bins (0, 1/2] and (1/2, 1]: 0.5 and 0 share one, so their errors cancel."""
    assert expected_calibration_error([0.5, 0.0], [0, 0.5], bins=2) == pytest.approx(0)
    assert expected_calibration_error([0.5, 0.75], [0, 1], bins=2) == pytest.approx(0.375)


def test_calibrated_forecasts_have_no_error_and_a_brier_score_of_p_times_1_minus_p() -> None:
    confidence, correct = [0.25] * 4 + [0.8] * 5, [1, 0, 0, 0, 1, 1, 1, 1, 0]
    assert expected_calibration_error(confidence, correct, bins=5) == pytest.approx(0, abs=1e-15)
    assert brier(confidence, correct) == pytest.approx((4 * 0.1875 + 5 * 0.16) / 9)


@pytest.mark.parametrize("function", [brier, expected_calibration_error])
@pytest.mark.parametrize("confidence", [[], [0.5], [0.5, 1.5], [0.5, math.nan]])
def test_forecasts_that_are_none_are_refused(function, confidence: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        function(confidence, [1.0, 0.0])


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


def test_resampling_in_blocks_gives_the_same_interval_to_the_bit(monkeypatch) -> None:
    values = np.random.default_rng(2).normal(size=301).tolist()
    whole = bootstrap_ci(values, resamples=500)
    monkeypatch.setattr(metrics, "RESAMPLE_BLOCK", 777)
    assert bootstrap_ci(values, resamples=500) == whole


def test_an_interval_of_many_values_is_the_normal_one() -> None:
    """Mean -+ 1.96 std / sqrt(n), and 2.58 at the level 0.99."""
    values = np.random.default_rng(5).normal(size=2000)
    error = values.std() / 2000**0.5
    for level, z in ((0.95, 1.960), (0.99, 2.576)):
        mean, low, high = bootstrap_ci(values.tolist(), resamples=4000, level=level)
        assert mean == pytest.approx(values.mean())
        assert (mean - low, high - mean) == pytest.approx((z * error, z * error), rel=0.08)


def test_unscored_values_are_left_out_and_nothing_at_all_is_nan() -> None:
    assert bootstrap_ci([1.0, math.nan, 3.0])[0] == 2.0
    assert all(math.isnan(value) for value in bootstrap_ci([math.nan]))


def test_one_prompt_says_nothing_of_how_prompts_differ_and_has_no_interval() -> None:
    for groups in ([7] * 4, None):
        values = [0.0, 1.0, 1.0, 1.0] if groups else [0.75]
        mean, low, high = bootstrap_ci(values, groups)
        assert mean == 0.75 and math.isnan(low) and math.isnan(high)
    assert bootstrap_ci([0.0, math.nan, 1.0], [1, 2, 1])[0] == 0.5
    assert math.isnan(bootstrap_ci([0.0, math.nan, 1.0], [1, 2, 1])[1])


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    before = list(np.random.default_rng(1).normal(size=50))
    after = [value + 0.1 for value in before]
    mean, low, high = paired_difference(before, after)
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize("case", cases("pass_at_k_mean"), ids=lambda c: c["id"])
def test_pass_at_k_over_tasks_of_different_sizes_equals_the_reference(case: dict) -> None:
    assert mean_pass_at_k(**case["in"]) == pytest.approx(case["out"]["mean"], rel=1e-12)


def test_matthews_correlation_by_hand() -> None:
    """2 of 3 sick and 4 of 5 sound ones found: (2*4 - 1*1) / sqrt(3*3*5*5)."""
    truth, said = "sick " * 3 + "sound " * 5, "sick sick sound sick " + "sound " * 4
    assert matthews_correlation(truth.split(), said.split()) == pytest.approx(7 / 15)
    assert matthews_correlation("abc", "abc") == 1
    assert matthews_correlation("abab", "baba") == -1
    assert matthews_correlation("aabb", "abab") == 0


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_matthews_correlation_equals_scikit_learn_s(classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(classes)
    truth = random.integers(classes, size=200)
    said = np.where(random.uniform(size=200) < 0.4, truth, random.integers(classes + 1, size=200))
    found = matthews_correlation(truth.tolist(), said.tolist())
    assert found == pytest.approx(sklearn.matthews_corrcoef(truth, said), rel=1e-12)


@pytest.mark.parametrize(("truth", "said"), [("aab", "aaa"), ("aaa", "aab"), ("", "")])
def test_one_class_alone_has_no_matthews_correlation(truth: str, said: str) -> None:
    assert math.isnan(matthews_correlation(truth, said))
