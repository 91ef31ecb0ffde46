"""A reward that is away: a trained one is waited for, a watched one goes without, in bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import pytest

from mmrl.reward import FaultPolicy, RewardConfig, RewardError, RewardUnavailable, Scorer
from mmrl.types import Prompt, TextSample

SAMPLES = [TextSample(Prompt("q"), str(index)) for index in range(16)]
SHORT = {"backoff_s": 0.001, "breaker_rest_s": 0.004, "outage_s": 60.0}
LONG = {**SHORT, "outage_s": 0.01}


def judge(
    is_away: Callable[[str, int], bool], together: int = 16
) -> tuple[RewardConfig, list[str]]:
    """Scores the number in a sample; `is_away` gets its text and how many calls came before.

    The first `together` calls are under way in sixteens: none ends before the last has begun.
    """
    calls: list[str] = []
    begun = {end: asyncio.Event() for end in range(16, together + 1, 16)}

    class Judge(RewardConfig):
        unit: ClassVar[str] = "sample"

        async def __call__(self, sample):
            calls.append(sample.text)
            number = len(calls) - 1
            if number + 1 in begun:
                begun[number + 1].set()
            if number < together:
                await begun[number // 16 * 16 + 16].wait()
            if is_away(sample.text, number):
                raise RewardUnavailable("away")
            return float(sample.text)

    return Judge(), calls


def scorer(reward: RewardConfig, *, waits: bool = True, **policy) -> Scorer:
    return Scorer("judge", reward, FaultPolicy(**policy), waits=waits)


def test_calls_of_a_batch_that_fail_together_do_not_open_the_breaker() -> None:
    reward, calls = judge(lambda text, number: number < 16)
    found = scorer(reward, **SHORT)
    assert set(found.score(SAMPLES).statuses) == {"ok"}
    assert len(calls) == 32 and found.counts()["retries"] == 16
    assert found.counts()["breaker_open"] == 0


@pytest.mark.parametrize("refused", [48, 60, 70])
def test_an_outage_costs_a_trained_reward_no_score(refused: int) -> None:
    """Three rounds of 16 calls use up every retry; then probes go one at a time."""
    reward, calls = judge(lambda text, number: number < refused)
    found = scorer(reward, **SHORT)
    assert found.score(SAMPLES).values.tolist() == [float(s.text) for s in SAMPLES]
    assert found.counts()["breaker_open"] >= 1
    assert len(calls) == refused + 1 + 16


def test_an_outage_in_the_middle_of_a_batch_costs_no_score() -> None:
    reward, _ = judge(lambda text, number: 5 <= number < 60)
    assert set(scorer(reward, **SHORT).score(SAMPLES).statuses) == {"ok"}


def test_a_sample_that_a_reward_fails_on_while_it_answers_others_gets_its_retries_only() -> None:
    """As one that kills the service's worker each time: no outage, and nobody waits."""
    reward, calls = judge(lambda text, number: text == "7")
    found = scorer(reward, **SHORT)
    statuses = found.score(SAMPLES).statuses
    assert Counter(statuses) == {"ok": 15, "unavailable": 1} and statuses[7] == "unavailable"
    assert Counter(calls)["7"] == 3
    assert not found.caller.breaker.is_open


def test_a_sync_reward_is_waited_for_too() -> None:
    calls: list[int] = []

    def sync(samples) -> list[float]:
        calls.append(len(samples))
        if len(calls) < 9:
            raise ConnectionError
        return [1.0] * len(samples)

    found = Scorer("judge", sync, FaultPolicy(**SHORT))
    assert set(found.score(SAMPLES).statuses) == {"ok"}


def test_an_outage_longer_than_a_run_waits_ends_it_in_one_line() -> None:
    reward, _ = judge(lambda text, number: True)
    message = (
        r"^reward 'judge' has not answered for \d+ s, longer than its outage_s of 0\.01; .*away"
    )
    with pytest.raises(RewardError, match=message):
        scorer(reward, **LONG).score(SAMPLES)


def test_an_evaluation_ends_without_the_scores_and_later_batches_ask_once() -> None:
    reward, calls = judge(lambda text, number: True)
    found = scorer(reward, **LONG)
    for batch in range(3):
        asked = len(calls)
        with pytest.raises(RewardError):
            found.score(SAMPLES)
        scoring = found.begin(stops=False)
        statuses = scoring.start(SAMPLES)().statuses
        assert set(statuses) <= {"unavailable", "skipped"}
        assert batch == 0 or len(calls) == asked + 2


def test_probes_keep_a_distance_where_retries_have_none() -> None:
    breaker = scorer(judge(lambda text, number: True)[0], backoff_s=0).caller.breaker
    breaker.failed(0, probe=True)
    assert 0.05 < breaker.rest_left() <= 0.1


def test_without_patience_the_retries_are_all() -> None:
    reward, calls = judge(lambda text, number: True)
    found = scorer(reward, **{**SHORT, "outage_s": 0}, breaker_after=100, budget=1)
    assert set(found.score(SAMPLES).statuses) == {"unavailable"}
    assert len(calls) == 48


def test_what_nobody_was_asked_about_spends_no_budget() -> None:
    """A watched reward is away: the outage is paid for once, by the samples that met it."""
    reward, _ = judge(lambda text, number: number >= 16, together=32)
    found = scorer(reward, waits=False, backoff_s=0.001, breaker_rest_s=60, retries=0)
    found.caller.breaker.first_rest_s = 60
    found.caller.breaker.after = 1
    found.score(SAMPLES)
    assert set(found.score(SAMPLES).statuses) == {"unavailable"}
    for _ in range(20):
        assert set(found.score(SAMPLES).statuses) == {"skipped"}
    assert found.memory().sizes == [16, 16]
