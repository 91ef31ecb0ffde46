"""The circuit breaker, with a clock of its own."""

from __future__ import annotations

import pytest

from mmrl.reward.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker_of(clock: Clock, *, failures: int) -> Breaker:
    """Opens at the second failure in a row; rests 2, 4, 8 and then 10 s."""
    breaker = Breaker(after=2, first_rest_s=1.0, longest_rest_s=10.0, clock=clock)
    for before in range(failures):
        breaker.failed(before)
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = breaker_of(Clock(), failures=0)
    for _ in range(5):
        breaker.failed(0)
        breaker.answered()
    assert not breaker.is_open and breaker.times_opened == 0
    breaker.failed(0)
    breaker.failed(1)
    assert breaker.is_open and breaker.times_opened == 1


def test_calls_that_fail_side_by_side_are_one_failure_a_round() -> None:
    breaker = breaker_of(Clock(), failures=0)
    breaker.after = 3
    for attempt in (0, 1):
        for _ in range(16):
            breaker.failed(attempt)
        assert breaker.failures == attempt + 1
    assert not breaker.is_open


def test_a_late_failure_neither_counts_nor_prolongs_the_rest() -> None:
    clock = Clock()
    breaker = breaker_of(clock, failures=2)
    clock.now = 1
    breaker.failed(0)
    assert breaker.failures == 2 and breaker.rest_left() == 1


def test_rests_double_up_to_the_longest() -> None:
    clock = Clock()
    breaker = breaker_of(clock, failures=2)
    for rest in (2, 4, 8, 10, 10):
        assert breaker.rest_left() == rest
        clock.now += rest
        assert breaker.rest_left() == 0
        breaker.failed(breaker.failures, probe=True)
    assert breaker.times_opened == 6


def test_an_answer_closes_it_and_ends_the_outage() -> None:
    clock = Clock()
    clock.now = 5
    breaker = breaker_of(clock, failures=2)
    clock.now = 12
    assert breaker.away_s() == 7
    breaker.answered()
    assert not breaker.is_open and breaker.away_s() == breaker.rest_left() == 0


def test_a_failed_probe_opens_it_at_once() -> None:
    breaker = breaker_of(Clock(), failures=1)
    breaker.failed(1, probe=True)
    assert breaker.is_open


@pytest.mark.parametrize("failures", [100, 10_000])
def test_a_long_outage_never_overflows_the_rest(failures: int) -> None:
    assert breaker_of(Clock(), failures=failures).rest_left() == 10
