"""A reward under its fault policy: every sample ends with a score, or with NaN and a reason."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from mmrl.reward.base import RewardError
from mmrl.reward.caller import Caller
from mmrl.reward.calls import background_loop, run_without_loop
from mmrl.reward.faults import AWAY, Budget, FaultMemory, FaultPolicy, Status
from mmrl.reward.scored import Scored
from mmrl.types import Metrics, Sample

CONCURRENT_CALLS = 16
"""Calls of one async reward that are under way at once."""


class Scorer:
    """Scores batches with one reward, keeps count of what went wrong, and ends a run for it."""

    def __init__(
        self, name: str, reward: Callable[..., Any], policy: FaultPolicy, *, waits: bool = True
    ) -> None:
        self.name = name
        self.policy = policy
        self.waits = waits
        """Whether scoring waits for a reward that is away (a trained one), or goes on without."""
        self.caller = Caller(name, reward, policy, waits=waits)
        silent = policy.silent_batches if waits else None
        self.budget = Budget(name, policy.budget, policy.budget_steps, silent)
        self.statuses: Counter[Status] = Counter()

    def begin(self, group_size: int = 1, *, stops: bool = True) -> Scoring:
        """A new batch; with `stops` off its failures spend no budget."""
        self.caller.begin()
        return Scoring(self, group_size, stops)

    def score(self, samples: Sequence[Sample], group_size: int = 1) -> Scored:
        """Scores and statuses of all samples.

        RewardError where the failures of the last batches pass the budget, or the reward stays
        away.
        """
        batch = self.begin(group_size)
        try:
            return batch.start(samples)()
        finally:
            batch.cancel()

    def counts(self) -> Metrics:
        """What the last `score` met: samples by status, retries, times the breaker opened."""
        names: tuple[Status, ...] = ("abstained", "timeout", "error", "unavailable", "skipped")
        counted = {name: float(self.statuses[name]) for name in names}
        calls = {"retries": self.caller.retries, "breaker_open": self.caller.opened}
        return {**counted, **{name: float(number) for name, number in calls.items()}}

    def memory(self) -> FaultMemory:
        """What the budget has seen so far."""
        return FaultMemory(
            silent=self.budget.silent,
            causes=[dict(causes) for causes, _ in self.budget.seen],
            sizes=[size for _, size in self.budget.seen],
        )

    def recall(self, memory: FaultMemory) -> None:
        """Let the budget of a new scorer go on as remembered."""
        self.budget.recall(memory)

    def end(self, scored: Scored, stops: bool) -> Scored:
        """Count what became of a batch, and let it spend budget where it `stops` the run."""
        self.statuses = Counter(scored.statuses)
        self.caller.log.close()
        if stops:
            self._check_presence()
            self.budget.spend(scored.statuses, self.caller.last_failure)
        return scored

    def _check_presence(self) -> None:
        """RewardError where a trained reward stayed away for longer than a run waits."""
        waited = self.waits and self.policy.outage_s and self.caller.given_up
        if waited and self.statuses and not self.statuses.keys() - set(AWAY):
            raise RewardError(
                f"reward '{self.name}' has not answered for {self.caller.breaker.away_s():.0f} s, "
                f"longer than its outage_s of {self.policy.outage_s:g}; "
                f"last failure: {self.caller.last_failure}"
            )


class Scoring:
    """One batch of a scorer, whose samples may come in parts before all of them are there.

    An async reward whose calls get one sample or one group is asked about a part as soon as it is
    added; every other begins when the batch is whole. The limit of calls under way and the counts
    are those of the batch.
    """

    def __init__(self, scorer: Scorer, group_size: int, stops: bool) -> None:
        self.scorer = scorer
        self.group_size = group_size
        self.stops = stops
        self.calls: list[Future[Scored]] = []
        self._asked = 0
        self._limit = asyncio.Semaphore(CONCURRENT_CALLS)

    def add(self, samples: Sequence[Sample]) -> None:
        """The next samples in order, whole groups; ConfigError of an earlier call is raised."""
        if self.scorer.caller.is_async and self.scorer.caller.unit != "batch":
            self._ask(samples)

    def start(self, samples: Sequence[Sample]) -> Callable[[], Scored]:
        """Begin with all that was not added; `samples` is the whole batch.

        The returned function waits for the end, and there a sync reward starts. RewardError where
        the failures of the last batches pass the budget.
        """
        if not self.scorer.caller.is_async:
            return lambda: self._end(run_without_loop(self._in_turn(samples)))
        self._ask(samples[self._asked :])
        return lambda: self._end(self._gathered())

    def cancel(self) -> None:
        """End every call that is under way."""
        for call in self.calls:
            call.cancel()

    def _ask(self, samples: Sequence[Sample]) -> None:
        _raise_failed(self.calls)
        self._asked += len(samples)
        self.calls += [
            asyncio.run_coroutine_threadsafe(self._call(part), background_loop())
            for part in self._parts(samples)
        ]

    async def _call(self, part: Sequence[Sample]) -> Scored:
        async with self._limit:
            return await self.scorer.caller.ask(part)

    async def _in_turn(self, samples: Sequence[Sample]) -> Scored:
        ask = self.scorer.caller.ask
        return Scored.joined([await ask(part) for part in self._parts(samples)])

    def _parts(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """What the calls get."""
        sizes = {"sample": 1, "group": self.group_size, "batch": max(1, len(samples))}
        size = sizes[self.scorer.caller.unit]
        return (samples[start : start + size] for start in range(0, len(samples), size))

    def _gathered(self) -> Scored:
        wait(self.calls, return_when=FIRST_EXCEPTION)
        _raise_failed(self.calls)
        return Scored.joined([call.result() for call in self.calls])

    def _end(self, scored: Scored) -> Scored:
        return self.scorer.end(scored, self.stops)


def _raise_failed(calls: Sequence[Future[Scored]]) -> None:
    for call in calls:
        if call.done():
            call.result()
