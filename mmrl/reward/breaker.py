"""When a reward is left alone: a circuit breaker with waits that grow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Breaker:
    """Open after `after` failures in a row, until a probe is answered.

    Calls that are under way together and fail together are one failure. A probe is due after
    `first_rest_s` * 2 ** (failures in a row - 1) seconds, at most `longest_rest_s`.
    """

    after: int
    first_rest_s: float
    longest_rest_s: float
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    """In a row: 0 where the last call was answered."""
    times_opened: int = 0
    """Failed probes of an open breaker among them."""
    opened_at: float | None = None
    away_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing but a probe may be asked."""
        return self.opened_at is not None

    def rest_left(self) -> float:
        """Seconds until a probe is due; 0 where the breaker is closed."""
        if self.opened_at is None:
            return 0.0
        doublings = min(30, max(0, self.failures - 1))
        rest_s = min(self.longest_rest_s, self.first_rest_s * 2.0**doublings)
        return max(0.0, self.opened_at + rest_s - self.clock())

    def away_s(self) -> float:
        """Seconds since the first failure in a row; 0 where the last call was answered."""
        return 0.0 if self.away_since is None else self.clock() - self.away_since

    def answered(self) -> None:
        """A call got through: closed."""
        self.failures, self.opened_at, self.away_since = 0, None, None

    def failed(self, before: int, *, probe: bool = False) -> None:
        """A call found the reward unavailable.

        `before`: the failures in a row that it knew of, its own among them. Where there are more by
        now, another call that was under way beside it has been counted. A probe opens the breaker.
        """
        now = self.clock()
        if self.away_since is None:
            self.away_since = now
        if before >= self.failures:
            self.failures += 1
        if probe or (self.opened_at is None and self.failures >= self.after):
            self.opened_at = now
            self.times_opened += 1
