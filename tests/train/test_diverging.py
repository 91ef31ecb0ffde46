"""A run whose ratio runs away still logs numbers, in lines that any JSON reader takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mmrl.train.metrics import MetricsFile
from mmrl.train.ratio import LARGEST_LOG_RATIO, ratio_metrics
from tests.toy_video import PROMPTS, toy_policy


def deviation(by: float) -> float:
    """Of a rollout whose sampler is said to have been `by` less sure of every step."""
    rollout = toy_policy().rollout(PROMPTS, 2, [1, 2])
    known = rollout.behavior["denoise"]
    lower = {"denoise": replace(known, log_probs=known.log_probs - by)}
    return ratio_metrics(rollout.behavior, replace(rollout, behavior=lower))["ratio/deviation"]


def refuse(token: str) -> None:
    raise AssertionError(f"{token} is no JSON")


def test_a_ratio_that_diverges_is_cut_as_in_the_objective() -> None:
    """exp(2000) is inf; small log-ratios are as they were."""
    assert deviation(0.1) == pytest.approx(math.exp(0.1) - 1)
    assert deviation(2000.0) == pytest.approx(math.exp(LARGEST_LOG_RATIO) - 1)
    assert deviation(-2000.0) == pytest.approx(1 - math.exp(-LARGEST_LOG_RATIO))


def test_a_line_of_metrics_is_json_whatever_stands_in_it(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    found = {"ratio/deviation": deviation(2000.0), "a": math.inf, "b": math.nan, "c": -math.inf}
    file.write(3, found)
    line = json.loads(file.path.read_text(), parse_constant=refuse)
    assert line == {"step": 3, **found, "a": None, "b": None, "c": None}
