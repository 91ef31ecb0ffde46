"""The fault policy's parts: a budget, names of exceptions."""

from __future__ import annotations

import pytest

from mmrl.reward import RewardError, RewardUnavailable
from mmrl.reward.faults import Budget, status_of


def test_a_budget_counts_the_last_batches_and_neither_abstentions_nor_what_was_skipped() -> None:
    budget = Budget("judge", share=0.5, batches=2)
    budget.spend(["ok", "ok", "ok", "error"], "x")
    budget.spend(["abstained"] * 4, "x")
    budget.spend(["skipped"] * 4, "x")
    budget.spend(["timeout", "timeout", "error", "skipped"], "x")
    message = r"'judge' failed on 6 of 7 samples of the last 2 batches \(5 timeout, 1 error\)"
    with pytest.raises(RewardError, match=message):
        budget.spend(["timeout", "timeout", "timeout", "ok"], "no answer")


def test_a_trained_reward_that_falls_silent_stops_the_run() -> None:
    budget = Budget("ocr", share=0.5, batches=10, silent_batches=3)
    for last in ("ok", "timeout"):
        budget.spend(["abstained"] * 4, "x")
        budget.spend(["abstained"] * 4, "x")
        budget.spend([*["abstained"] * 3, last], "x")
    budget.spend(["abstained"] * 4, "x")
    budget.spend(["abstained"] * 4, "x")
    with pytest.raises(RewardError, match="'ocr' abstained from every sample of 3 batches"):
        budget.spend(["abstained"] * 4, "x")


def test_a_watched_reward_may_be_silent() -> None:
    budget = Budget("ocr", share=0.5, batches=10)
    for _ in range(20):
        budget.spend(["abstained"] * 4, "x")


def test_a_whole_budget_never_stops_the_run() -> None:
    Budget("watched", share=1.0, batches=3).spend(["error"] * 9, "x")


class ReadTimeout(Exception):
    """As requests and httpx name theirs."""


class APIConnectionError(Exception):
    """As judges' clients name theirs."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimeoutError(), "timeout"),
        (ReadTimeout(), "timeout"),
        (ConnectionRefusedError(), "unavailable"),
        (APIConnectionError(), "unavailable"),
        (RewardUnavailable("503"), "unavailable"),
        (OSError("image file is truncated"), "error"),
        (FileNotFoundError(), "error"),
        (ValueError(), "error"),
    ],
)
def test_only_what_waiting_can_cure_is_called_unavailable(error: Exception, status: str) -> None:
    assert status_of(error) == status
