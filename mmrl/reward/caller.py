"""Calls of one reward: retries, halves, and the wait for a reward that is away."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmrl.config import ConfigError
from mmrl.reward.base import is_async, unit_of
from mmrl.reward.breaker import Breaker
from mmrl.reward.calls import WrongScoresError, call_within, to_scores
from mmrl.reward.failures import FailureLog
from mmrl.reward.faults import MAX_BACKOFF_S, FaultPolicy, Status, status_of
from mmrl.reward.scored import INFINITE, Scored
from mmrl.types import Sample

logger = logging.getLogger(__name__)
LEAST_REST_S = 0.1
"""Probes keep at least this distance, also where retries have none."""
ALONE = "a group of 1 sample has nothing to compare"


class Caller:
    """Asks one reward about samples until each has a score, or a status that says why not.

    A call that finds the reward unavailable (timeout, connection, RewardUnavailable) is repeated
    after a growing, jittered wait, one that returns no proper scores at once. A batch that raises
    anything else is halved until the culprits stand alone, and those are tried again at once: the
    others keep their scores. A ConfigError (no such model, no weights) is raised at once. Jitter
    never reaches a score, and without faults nothing is random.
    """

    def __init__(
        self, name: str, reward: Callable[..., Any], policy: FaultPolicy, *, waits: bool
    ) -> None:
        self.name = name
        self.reward = reward
        self.policy = policy
        self.waits = waits
        """Whether calls wait for a reward that is away (a trained one), or are skipped."""
        self.unit, self.is_async = unit_of(reward), is_async(reward)
        first_rest_s = max(LEAST_REST_S, policy.backoff_s)
        self.breaker = Breaker(policy.breaker_after, first_rest_s, policy.breaker_rest_s)
        self.retries = 0
        self.last_failure = "none"
        self.log = FailureLog(name)
        self._opened_before = 0
        self._answered: Sequence[Sample] = ()
        """Samples of this batch that the reward has answered about: what a probe asks."""
        self._probing = asyncio.Lock()
        self._busy = threading.Lock()
        self._jitter = random.Random(name)

    def begin(self) -> None:
        """A new batch: its counts start at 0."""
        self.retries, self._opened_before, self._answered = 0, self.breaker.times_opened, ()

    @property
    def opened(self) -> int:
        """How often the breaker has opened in this batch, failed probes among them."""
        return self.breaker.times_opened - self._opened_before

    @property
    def given_up(self) -> bool:
        """Whether the reward is away, and was for longer than a run waits."""
        return self.breaker.is_open and self.breaker.away_s() >= self.policy.outage_s

    async def ask(self, part: Sequence[Sample]) -> Scored:
        """What one call tells of its samples, however many attempts and halves that takes.

        A group of one abstains: it holds nothing to compare, and its rank would be a made-up score.
        """
        if self.unit == "group" and len(part) == 1:
            return Scored.failed("abstained", 1, ALONE)
        found = await self._attempts(part)
        while found is not None and await self._is_away(found, part) and await self._admits(part):
            found = await self._attempts(part)
        if found is not None:
            return found
        half = len(part) // 2
        return Scored.joined([await self.ask(part[:half]), await self.ask(part[half:])])

    async def _attempts(self, part: Sequence[Sample]) -> Scored | None:
        """The scores of one call, or the failure of its last attempt; None: try its halves."""
        found = Scored.failed("skipped", len(part), "its breaker is open")
        failures = self.breaker.failures
        for attempt in itertools.count():
            if not await self._admits(part):
                return found
            self.retries += attempt > 0
            try:
                return await self._call(part, failures + attempt)
            except ConfigError:
                raise  # no sample failed: the run itself is set up wrongly
            except Exception as error:
                status = self._note(error)
                if self.unit == "batch" and len(part) > 1 and _may_be_one_sample(error):
                    return None
            found = Scored.failed(status, len(part), self.last_failure)
            if attempt == self.policy.retries:
                return found
            if status != "error":
                await self.sleep(self._backoff(attempt))

    async def _is_away(self, found: Scored, part: Sequence[Sample]) -> bool:
        """Whether a call failed because the reward is away, and not because of its own samples.

        A reward that still answers about others is there.
        """
        if not (self.waits and self.policy.outage_s and "unavailable" in found.statuses):
            return False
        if self.breaker.is_open:
            return True
        async with self._probing:
            if self.breaker.failures and not self.breaker.is_open:
                await self._probe(part)
            return self.breaker.is_open

    async def _admits(self, part: Sequence[Sample]) -> bool:
        """Whether the breaker lets a call pass.

        While it is open one call probes whenever a probe is due. Those of a trained reward wait for
        the outcome until the outage has lasted too long; others are refused.
        """
        while self.breaker.is_open:
            if not self.waits and (self.breaker.rest_left() or self._probing.locked()):
                return False
            async with self._probing:
                if self.opened and (self.given_up or not self.waits):
                    return False
                patience_s = max(0.0, self.policy.outage_s - self.breaker.away_s())
                await self.sleep(min(self.breaker.rest_left(), patience_s))
                if self.breaker.is_open:
                    await self._probe(part)
        return True

    async def _probe(self, part: Sequence[Sample]) -> None:
        """Ask about samples that were answered before, else about these; the breaker listens."""
        try:
            await self._call(self._answered or part, self.breaker.failures, probe=True)
        except ConfigError:
            raise
        except Exception as error:
            self._note(error)

    async def _call(self, part: Sequence[Sample], before: int, *, probe: bool = False) -> Scored:
        """One call; what it tells of the reward goes to the breaker."""
        try:
            scored = Scored.of(to_scores(await self._answer(part), len(part)))
        except ConfigError:
            raise
        except Exception as error:
            if status_of(error) == "error":
                self.breaker.answered()
            else:
                self._failed(before, probe=probe)
            raise
        if self.breaker.is_open:
            away_s = self.breaker.away_s()
            logger.warning("reward '%s' answers again after %.0f s", self.name, away_s)
        self.breaker.answered()
        self._answered = part[:1] if self.unit == "batch" else part
        if "error" in scored.statuses:
            self.last_failure = INFINITE
        return scored

    async def _answer(self, part: Sequence[Sample]) -> Any:
        given = part[0] if self.unit == "sample" else part
        if self.is_async:
            return await asyncio.wait_for(self.reward(given), self.policy.timeout_s)
        if self.policy.timeout_s is None:
            with torch.no_grad():
                return self.reward(given)
        return call_within(self.reward, given, self.policy.timeout_s, self._busy)

    def _failed(self, before: int, *, probe: bool) -> None:
        was_open = self.breaker.is_open
        self.breaker.failed(before, probe=probe)
        if self.breaker.is_open and not was_open:
            patience = f"; waiting for at most {self.policy.outage_s:g} s" if self.waits else ""
            logger.warning("reward '%s' is away%s", self.name, patience)

    def _note(self, error: Exception) -> Status:
        status = status_of(error)
        self.last_failure = self.log.note(status, error)
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


def _may_be_one_sample(error: Exception) -> bool:
    """Whether the rest of a batch may have scores: not where the reward is away, and not where it
    returned another number of scores, which half a batch could match by chance."""
    return status_of(error) == "error" and not isinstance(error, WrongScoresError)
