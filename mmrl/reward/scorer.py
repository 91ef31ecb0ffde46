"""A reward under its fault policy: every sample ends with a score, or with NaN and a reason."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

import torch

from mmrl.config import ConfigError
from mmrl.reward.base import is_async, unit_of
from mmrl.reward.calls import (
    WrongScoresError,
    background_loop,
    call_within,
    run_without_loop,
    to_scores,
)
from mmrl.reward.faults import (
    MAX_BACKOFF_S,
    Breaker,
    Budget,
    FaultMemory,
    FaultPolicy,
    Status,
    status_of,
)
from mmrl.reward.scored import INFINITE, Scored
from mmrl.types import Metrics, Sample

logger = logging.getLogger(__name__)
CONCURRENT_CALLS = 16
"""Calls of one async reward that are under way at once."""


class Scorer:
    """Calls one reward and keeps count of what went wrong.

    A call that finds the reward unavailable (timeout, connection, RewardUnavailable) is repeated
    after a growing, jittered wait, one that returns no proper scores at once. A batch that raises
    anything else is halved until the culprits stand alone, and those are tried again at once: the
    others keep their scores. A ConfigError (no such model, no weights) is raised at once. Jitter
    never reaches a score, and without faults nothing is random.
    """

    def __init__(
        self, name: str, reward: Callable[..., Any], policy: FaultPolicy, *, waits: bool = True
    ) -> None:
        self.name = name
        self.reward = reward
        self.policy = policy
        self.waits = waits
        """Whether scoring waits until an open breaker may probe (a trained reward), or goes on."""
        self.unit, self.is_async = unit_of(reward), is_async(reward)
        self.breaker = Breaker(policy.breaker_after, policy.breaker_rest_s)
        silent = policy.silent_batches if waits else None
        self.budget = Budget(name, policy.budget, policy.budget_steps, silent)
        self.statuses: Counter[Status] = Counter()
        self.retries = 0
        self.last_failure = "none"
        self._opened_before = 0
        self._busy = threading.Lock()
        self._jitter = random.Random(name)

    def begin(self, group_size: int = 1, *, stops: bool = True) -> Scoring:
        """A new batch; with `stops` off its failures spend no budget."""
        self.retries, self._opened_before = 0, self.breaker.times_opened
        return Scoring(self, group_size, stops)

    def score(self, samples: Sequence[Sample], group_size: int = 1) -> Scored:
        """Scores and statuses of all samples.

        RewardError where the failures of the last batches pass the budget.
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
        opened = self.breaker.times_opened - self._opened_before
        return {**counted, "retries": float(self.retries), "breaker_open": float(opened)}

    def memory(self) -> FaultMemory:
        """What breaker and budget have seen so far."""
        return FaultMemory(
            failures=self.breaker.failures,
            is_open=self.breaker.opened_at is not None,
            silent=self.budget.silent,
            causes=[dict(causes) for causes, _ in self.budget.seen],
            sizes=[size for _, size in self.budget.seen],
        )

    def recall(self, memory: FaultMemory) -> None:
        """Let breaker and budget of a new scorer go on as remembered."""
        self.breaker.recall(memory)
        self.budget.recall(memory)

    def end(self, scored: Scored, stops: bool) -> Scored:
        """Count what became of a batch, and let it spend budget where it `stops` the run."""
        self.statuses = Counter(scored.statuses)
        if stops:
            self.budget.spend(scored.statuses, self.last_failure)
        return scored

    async def ask(self, part: Sequence[Sample]) -> Scored:
        """What one call tells of its samples, however many attempts and halves that takes."""
        found = await self._attempts(part)
        if found is not None:
            return found
        half = len(part) // 2
        return Scored.joined([await self.ask(part[:half]), await self.ask(part[half:])])

    async def _attempts(self, part: Sequence[Sample]) -> Scored | None:
        """The scores of one call, or the failure of its last attempt; None: try its halves."""
        status: Status = "skipped"
        reason = "its breaker is open"
        for attempt in range(1 + self.policy.retries):
            if not self.breaker.admit():
                break
            self.retries += attempt > 0
            try:
                scored = Scored.of(to_scores(await self._call(part), len(part)))
            except (ConfigError, asyncio.CancelledError):
                self.breaker.abandoned()
                raise  # no sample failed: the run itself is set up wrongly, or at its end
            except Exception as error:
                status, reason = self._note(error, part), self.last_failure
                if self.unit == "batch" and len(part) > 1 and _may_be_one_sample(error):
                    return None
            else:
                self.breaker.succeeded()
                if "error" in scored.statuses:
                    self.last_failure = INFINITE
                return scored
            if status != "error" and attempt < self.policy.retries:
                await self.sleep(self._backoff(attempt))
        return Scored.failed(status, len(part), reason)

    async def _call(self, part: Sequence[Sample]) -> Any:
        given = part[0] if self.unit == "sample" else part
        if self.is_async:
            return await asyncio.wait_for(self.reward(given), self.policy.timeout_s)
        if self.policy.timeout_s is None:
            with torch.no_grad():
                return self.reward(given)
        return call_within(self.reward, given, self.policy.timeout_s, self._busy)

    def _note(self, error: Exception, part: Sequence[Sample]) -> Status:
        """Log a failed call; what it says about the reward goes to the breaker."""
        status = status_of(error)
        self.last_failure = str(error) or type(error).__name__
        logger.warning(
            "reward '%s', %d samples: %s: %s", self.name, len(part), status, self.last_failure
        )
        if status == "error":
            self.breaker.succeeded()
        else:
            self.breaker.failed()
        return status

    def _backoff(self, attempt: int) -> float:
        longest = min(MAX_BACKOFF_S, self.policy.backoff_s * 2**attempt)
        return longest * self._jitter.uniform(0.5, 1.0)

    async def sleep(self, seconds: float) -> None:
        """Wait on the loop where the reward is async, else in this thread."""
        if self.is_async:
            await asyncio.sleep(seconds)
        elif seconds > 0:
            time.sleep(seconds)


class Scoring:
    """One batch of a scorer, whose samples may come in parts before all of them are there.

    An async reward whose calls get one sample or one group is asked about a part as soon as it is
    added; every other begins when the batch is whole. The limit of calls under way, the wait for an
    open breaker and the counts are those of the batch.
    """

    def __init__(self, scorer: Scorer, group_size: int, stops: bool) -> None:
        self.scorer = scorer
        self.group_size = group_size
        self.stops = stops
        self.calls: list[Future[Scored]] = []
        self._asked = 0
        self._limit = asyncio.Semaphore(CONCURRENT_CALLS)
        rest = scorer.breaker.rest_left() if scorer.waits else 0.0
        self._not_before = time.monotonic() + rest

    def add(self, samples: Sequence[Sample]) -> None:
        """The next samples in order, whole groups; ConfigError of an earlier call is raised."""
        if self.scorer.is_async and self.scorer.unit != "batch":
            self._ask(samples)

    def start(self, samples: Sequence[Sample]) -> Callable[[], Scored]:
        """Begin with all that was not added; `samples` is the whole batch.

        The returned function waits for the end, and there a sync reward starts. RewardError where
        the failures of the last batches pass the budget.
        """
        if not self.scorer.is_async:
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
        await self._rest()
        async with self._limit:
            return await self.scorer.ask(part)

    async def _in_turn(self, samples: Sequence[Sample]) -> Scored:
        await self._rest()
        return Scored.joined([await self.scorer.ask(part) for part in self._parts(samples)])

    async def _rest(self) -> None:
        await self.scorer.sleep(max(0.0, self._not_before - time.monotonic()))

    def _parts(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """What the calls get."""
        sizes = {"sample": 1, "group": self.group_size, "batch": max(1, len(samples))}
        size = sizes[self.scorer.unit]
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


def _may_be_one_sample(error: Exception) -> bool:
    """Whether the rest of a batch may have scores: not where the reward is away, and not where it
    returned another number of scores, which half a batch could match by chance."""
    return status_of(error) == "error" and not isinstance(error, WrongScoresError)
