"""A reward under its fault policy: a failure is never a score, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch

from mmrl.config import ConfigError
from mmrl.reward import FaultPolicy, RewardConfig, RewardError, RewardUnavailable, Scorer
from mmrl.types import Prompt, TextSample

SAMPLES = [TextSample(Prompt("q"), text) for text in ("one", "two", "three", "fourth")]
LENGTHS = [3.0, 3.0, 5.0, 6.0]
QUICK = {"backoff_s": 0.0, "breaker_rest_s": 0.0}


def lengths(samples) -> list[float]:
    return [float(len(sample.text)) for sample in samples]


def scorer(reward: Callable, **policy) -> Scorer:
    return Scorer("judge", reward, FaultPolicy(**{**QUICK, **policy}))


class Flaky:
    """Fails in the given ways, call by call, then scores."""

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)
        self.calls: list[int] = []

    def __call__(self, samples) -> list[float]:
        self.calls.append(len(samples))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return lengths(samples)


def test_one_bad_sample_costs_no_other_its_score() -> None:
    def picky(samples) -> list[float]:
        if any(sample.text == "two" for sample in samples):
            raise ValueError("no")
        return lengths(samples)

    judge = scorer(picky)
    found = judge.score(SAMPLES)
    assert found.statuses == ("ok", "error", "ok", "ok")
    assert found.values[[0, 2, 3]].tolist() == [3, 5, 6]
    assert found.values[1].isnan()
    assert judge.counts() | {"retries": 0} == {
        "abstained": 0,
        "timeout": 0,
        "error": 1,
        "unavailable": 0,
        "skipped": 0,
        "retries": 0,
        "breaker_open": 0,
    }


def test_an_unavailable_reward_is_asked_again_with_the_whole_batch() -> None:
    reward = Flaky(RewardUnavailable("away"), ConnectionResetError())
    judge = scorer(reward, retries=2)
    assert judge.score(SAMPLES).values.tolist() == LENGTHS
    assert reward.calls == [4, 4, 4]
    assert judge.counts()["retries"] == 2


def test_retries_are_bounded_and_the_reason_is_kept() -> None:
    reward = Flaky(*[RewardUnavailable("away")] * 9)
    judge = scorer(reward, retries=1, budget=1.0, outage_s=0)
    assert judge.score(SAMPLES).statuses == ("unavailable",) * 4
    assert reward.calls == [4, 4]


def test_a_mistake_in_the_config_is_raised_at_once_and_costs_no_retry() -> None:
    reward = Flaky(ConfigError("no folder x", key="model"))
    with pytest.raises(ConfigError, match="no folder x"):
        scorer(reward, retries=2).score(SAMPLES)
    assert reward.calls == [4]


def test_an_open_breaker_skips_the_rest_of_a_batch() -> None:
    class Away(RewardConfig):
        unit: ClassVar[str] = "sample"

        def __call__(self, sample):
            raise RewardUnavailable("away")

    policy = FaultPolicy(retries=0, breaker_after=2, breaker_rest_s=60, budget=1)
    judge = Scorer("away", Away(), policy, waits=False)
    found = judge.score(SAMPLES)
    assert found.statuses == ("unavailable", "unavailable", "skipped", "skipped")
    assert judge.counts()["breaker_open"] == 1


def test_scoring_goes_on_when_a_watched_reward_comes_back() -> None:
    """Its third call is a probe, and is followed by the batch's own."""
    reward = Flaky(*[RewardUnavailable("away")] * 2)
    policy = FaultPolicy(retries=0, breaker_after=1, backoff_s=0, breaker_rest_s=0, budget=1)
    judge = Scorer("watched", reward, policy, waits=False)
    found = [judge.score(SAMPLES).statuses[0] for _ in range(3)]
    assert found == ["unavailable", "skipped", "ok"]
    assert reward.calls == [4, 4, 4, 4]


def test_a_watched_reward_does_not_make_training_wait_for_its_breaker() -> None:
    policy = FaultPolicy(retries=0, breaker_after=1, breaker_rest_s=1e6, budget=1)
    judge = Scorer("watched", Flaky(RewardUnavailable("away")), policy, waits=False)
    judge.score(SAMPLES)
    assert judge.score(SAMPLES).statuses == ("skipped",) * 4


def test_a_call_past_its_limit_is_a_timeout_and_is_never_doubled() -> None:
    release, entered = threading.Event(), []

    def hangs(samples) -> list[float]:
        entered.append(len(samples))
        release.wait()
        return lengths(samples)

    judge = scorer(hangs, timeout_s=0.05, retries=1, budget=1)
    assert judge.score(SAMPLES).statuses == ("timeout",) * 4
    assert entered == [4]
    release.set()
    assert judge.score(SAMPLES).values.tolist() == LENGTHS


def test_a_time_limit_changes_no_score() -> None:
    assert scorer(lengths, timeout_s=5).score(SAMPLES).values.tolist() == LENGTHS


@pytest.mark.parametrize("bad", [float("inf"), -float("inf")])
def test_an_infinite_score_is_an_error(bad: float) -> None:
    found = scorer(lambda samples: torch.tensor([1.0, bad, 2.0, 3.0])).score(SAMPLES)
    assert found.statuses == ("ok", "error", "ok", "ok")
    assert found.values[1].isnan()


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_none_and_nan_abstain(nothing: float | None) -> None:
    found = scorer(lambda samples: [1.0, nothing, 2.0, 3.0], budget=0).score(SAMPLES)
    assert found.statuses == ("ok", "abstained", "ok", "ok")
    assert found.values[1].isnan()


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        torch.tensor,
        np.array,
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.int64),
    ],
)
def test_any_sort_of_number_is_a_float32_score(convert: Callable) -> None:
    found = scorer(lambda samples: convert(lengths(samples))).score(SAMPLES)
    assert found.values.dtype == torch.float32 and not found.values.requires_grad
    assert found.values.tolist() == LENGTHS


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(2), r"returned \(2,\) for 4 samples"),
        (torch.zeros(4, 1), r"returned \(4, 1\) for 4 samples"),
        (["good"], r"returned \['good'\] instead of numbers"),
        ({"score": 1.0}, "instead of numbers"),
        (torch.zeros(1, dtype=torch.complex64), "complex"),
    ],
)
def test_what_is_no_score_stops_the_run_with_its_own_words(returned, message: str) -> None:
    with pytest.raises(RewardError, match=f"'judge' failed on 4 of 4 samples.*{message}"):
        scorer(lambda samples: returned).score(SAMPLES)


def test_a_wrong_number_of_scores_is_asked_for_again_and_never_halved() -> None:
    """Two scores for four samples must not pass as those of a half."""
    answers = [torch.zeros(2), torch.tensor(LENGTHS)]
    judge = scorer(lambda samples: answers.pop(0))
    assert judge.score(SAMPLES).values.tolist() == LENGTHS
    assert judge.counts()["retries"] == 1


def test_an_async_reward_is_asked_for_many_samples_at_once() -> None:
    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            together.append(sample)
            while len(together) < len(SAMPLES):
                await asyncio.sleep(0.001)
            return len(sample.text)

    together: list[TextSample] = []
    judge = scorer(Judge(), timeout_s=5)
    assert judge.score(SAMPLES).values.tolist() == LENGTHS


def test_an_async_call_past_its_limit_is_cancelled() -> None:
    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            try:
                await asyncio.sleep(60 if sample.text == "two" else 0)
            except asyncio.CancelledError:
                cancelled.append(sample.text)
                raise
            return len(sample.text)

    cancelled: list[str] = []
    found = scorer(Judge(), timeout_s=0.2, retries=0).score(SAMPLES)
    assert found.statuses == ("ok", "timeout", "ok", "ok")
    assert cancelled == ["two"]


def test_a_group_is_scored_whole_or_not_at_all() -> None:
    class Rank(RewardConfig):
        unit: ClassVar[str] = "group"

        def __call__(self, group):
            if group[0].text == "one":
                raise ValueError("no")
            return range(len(group))

    found = scorer(Rank()).score(SAMPLES, group_size=2)
    assert found.statuses == ("error", "error", "ok", "ok")
    assert found.values[2:].tolist() == [0, 1]


def test_no_sample_is_no_call() -> None:
    assert len(scorer(lengths).score([]).values) == 0
