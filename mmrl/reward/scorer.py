"""A reward under its fault policy: every sample ends with a score, or with NaN and a reason."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.reward.base import is_async, unit_of
from mmrl.reward.calls import (
    WrongScoresError,
    background_loop,
    call_within,
    run_without_loop,
    to_scores,
)
from mmrl.reward.faults import MAX_BACKOFF_S, Breaker, Budget, FaultPolicy, Status, status_of
from mmrl.types import Metrics, Sample

logger = logging.getLogger(__name__)
INFINITE = "a score was infinite"
CONCURRENT_CALLS = 16
"""Calls of one async reward that are under way at once."""


@dataclass(frozen=True)
class Scored:
    """Scores of some samples, NaN where `statuses` is not "ok"."""

    values: Float[Tensor, " B"]
    statuses: tuple[Status, ...]
    reasons: tuple[str, ...]
    """A failure's own words; empty for "ok" and for most that abstain."""

    @classmethod
    def failed(cls, status: Status, count: int, reason: str = "") -> Scored:
        """No score for any of `count` samples."""
        return cls(torch.full((count,), torch.nan), (status,) * count, (reason,) * count)

    @classmethod
    def of(cls, values: Float[Tensor, " B"]) -> Scored:
        """A reward's own values: NaN abstains, an infinite value is an error."""
        names: list[Status] = [
            "ok" if value.isfinite() else "abstained" if value.isnan() else "error"
            for value in values
        ]
        reasons = tuple(INFINITE if name == "error" else "" for name in names)
        return cls(torch.where(values.isfinite(), values, torch.nan), tuple(names), reasons)

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """Several parts in their order."""
        values = [part.values for part in parts]
        joined = torch.cat(values) if values else torch.empty(0)
        return cls(
            joined,
            tuple(status for part in parts for status in part.statuses),
            tuple(reason for part in parts for reason in part.reasons),
        )

    def failures(self) -> list[str]:
        """Why each sample has no score, such as "error: bad file"; empty where it has one."""
        told = zip(self.statuses, self.reasons, strict=True)
        return ["" if s == "ok" else f"{s}: {reason}" if reason else s for s, reason in told]


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

    def start(
        self, samples: Sequence[Sample], group_size: int = 1, *, stops: bool = True
    ) -> Callable[[], Scored]:
        """Begin to score; the returned function waits for the end. A sync reward starts there.

        RewardError where the failures of the last batches pass the budget; with `stops` off they
        spend none.
        """
        self.retries, self._opened_before = 0, self.breaker.times_opened
        if self.is_async:
            scoring = self._score(samples, group_size)
            future = asyncio.run_coroutine_threadsafe(scoring, background_loop())
            return lambda: self._finish(future.result(), stops)
        return lambda: self._finish(run_without_loop(self._score(samples, group_size)), stops)

    def score(self, samples: Sequence[Sample], group_size: int = 1) -> Scored:
        """Scores and statuses of all samples."""
        return self.start(samples, group_size)()

    def counts(self) -> Metrics:
        """What the last `score` met: samples by status, retries, times the breaker opened."""
        names: tuple[Status, ...] = ("abstained", "timeout", "error", "unavailable", "skipped")
        counted = {name: float(self.statuses[name]) for name in names}
        opened = self.breaker.times_opened - self._opened_before
        return {**counted, "retries": float(self.retries), "breaker_open": float(opened)}

    def _finish(self, scored: Scored, stops: bool) -> Scored:
        self.statuses = Counter(scored.statuses)
        if stops:
            self.budget.spend(scored.statuses, self.last_failure)
        return scored

    async def _score(self, samples: Sequence[Sample], group_size: int) -> Scored:
        if self.waits:
            await self._sleep(self.breaker.rest_left())
        size = {"sample": 1, "group": group_size, "batch": max(1, len(samples))}[self.unit]
        parts = [samples[start : start + size] for start in range(0, len(samples), size)]
        if not self.is_async:
            return Scored.joined([await self._part(part) for part in parts])
        limit = asyncio.Semaphore(CONCURRENT_CALLS)

        async def limited(part: Sequence[Sample]) -> Scored:
            async with limit:
                return await self._part(part)

        return Scored.joined(await asyncio.gather(*(limited(part) for part in parts)))

    async def _part(self, part: Sequence[Sample]) -> Scored:
        found = await self._attempts(part)
        if found is not None:
            return found
        half = len(part) // 2
        return Scored.joined([await self._part(part[:half]), await self._part(part[half:])])

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
            except ConfigError:
                raise  # no sample failed: the run itself is set up wrongly
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
                await self._sleep(self._backoff(attempt))
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

    async def _sleep(self, seconds: float) -> None:
        if self.is_async:
            await asyncio.sleep(seconds)
        elif seconds > 0:
            time.sleep(seconds)


def _may_be_one_sample(error: Exception) -> bool:
    """Whether the rest of a batch may have scores: not where the reward is away, and not where it
    returned another number of scores, which half a batch could match by chance."""
    return status_of(error) == "error" and not isinstance(error, WrongScoresError)
