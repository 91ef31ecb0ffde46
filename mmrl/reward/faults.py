"""What happens when a reward fails: limits, retries, a circuit breaker, a budget. Never a score."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from mmrl.config import Config
from mmrl.reward.base import RewardError

Status = Literal["ok", "abstained", "timeout", "error", "unavailable", "skipped"]
"""How the scoring of one sample ended. All but the first mean NaN."""
FAILED: tuple[Status, ...] = ("timeout", "error", "unavailable", "skipped")
"""`abstained` is no failure: the reward itself said that it cannot judge the sample."""
MAX_BACKOFF_S = 30.0


class FaultPolicy(Config):
    """`faults:` of one reward, or of all. A sample that stays without a score is NaN."""

    timeout_s: float | None = Field(default=None, gt=0)
    """Longest time of one call; null waits for ever."""
    retries: int = Field(default=2, ge=0)
    """Further attempts after a call that failed."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first retry of an unavailable reward; doubles each time, up to 30 s."""
    breaker_after: int = Field(default=5, ge=1)
    """Calls in a row that found the reward unavailable before it is left alone for a while."""
    breaker_rest_s: float = Field(default=30.0, ge=0)
    """How long it is left alone before one call probes it."""
    least_group: int = Field(default=2, ge=1)
    """A group with fewer scored samples loses the scores it has."""
    budget: float = Field(default=0.5, ge=0, le=1)
    """Largest share of failed samples over the last `budget_steps` batches; more stops the run."""
    budget_steps: int = Field(default=10, ge=1)
    silent_batches: int = Field(default=3, ge=1)
    """Batches in a row of nothing but abstentions after which a trained reward stops the run."""


def status_of(error: Exception) -> Status:
    """Whether waiting may help (`timeout`, `unavailable`) or the call itself is wrong (`error`).

    HTTP libraries share no base class: their exceptions are told by name, `ReadTimeout`,
    `ConnectError`, `APIConnectionError`, `RateLimitError`.
    """
    names = [cls.__name__ for cls in type(error).__mro__]
    if any("Timeout" in name for name in names):
        return "timeout"
    marks = ("Connect", "RateLimit", "Unavailable")
    return "unavailable" if any(mark in name for mark in marks for name in names) else "error"


@dataclass(frozen=True)
class FaultMemory:
    """What of a reward's breaker and budget outlives the process: counts, no clock's time."""

    failures: int = 0
    """Calls in a row that found the reward unavailable."""
    is_open: bool = False
    silent: int = 0
    """Batches in a row of nothing but abstentions."""
    causes: Sequence[Mapping[Status, int]] = ()
    """Failures by status of the budget's last batches."""
    sizes: Sequence[int] = ()
    """Samples of each of them."""


@dataclass
class Breaker:
    """Open after `after` failures in a row; after `rest_s` one call may probe, and decides."""

    after: int
    rest_s: float
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    times_opened: int = 0
    opened_at: float | None = None
    probing: bool = False

    def admit(self) -> bool:
        """Whether a call may be made."""
        if self.opened_at is None:
            return True
        if self.probing or self.rest_left() > 0:
            return False
        self.probing = True
        return True

    def rest_left(self) -> float:
        """Seconds until a probe is allowed; 0 where the breaker is closed."""
        if self.opened_at is None:
            return 0.0
        return max(0.0, self.opened_at + self.rest_s - self.clock())

    def succeeded(self) -> None:
        """A call got through: closed."""
        self.failures, self.opened_at, self.probing = 0, None, False

    def failed(self) -> None:
        """A call found the reward unavailable."""
        self.failures += 1
        closed_and_due = self.opened_at is None and self.failures >= self.after
        if self.probing or closed_and_due:
            self.opened_at, self.probing = self.clock(), False
            self.times_opened += 1

    def recall(self, memory: FaultMemory) -> None:
        """Go on as remembered; an open breaker may probe at once."""
        self.failures = memory.failures
        self.opened_at = self.clock() - self.rest_s if memory.is_open else None

    def abandoned(self) -> None:
        """A call ended without telling whether the reward is there: another may probe."""
        self.probing = False


@dataclass
class Budget:
    """Failed samples of the last batches; RewardError where they pass the allowed share.

    And where a trained reward falls silent: it abstains from every sample, batch after batch.
    """

    name: str
    share: float
    batches: int
    silent_batches: int | None = None
    """Batches of nothing but abstentions that are one too many; None: any number may be."""
    silent: int = 0
    seen: deque[tuple[Counter[Status], int]] = field(init=False)

    def __post_init__(self) -> None:
        self.seen = deque(maxlen=self.batches)

    def spend(self, statuses: Sequence[Status], last_failure: str) -> None:
        """Count one batch; the error tells the causes and the last failure's own words."""
        self._listen(statuses)
        self.seen.append((Counter(s for s in statuses if s in FAILED), len(statuses)))
        causes = sum((counted for counted, _ in self.seen), Counter())
        total = sum(size for _, size in self.seen)
        if total and causes.total() > self.share * total:
            told = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
            raise RewardError(
                f"reward '{self.name}' failed on {causes.total()} of {total} samples of the last "
                f"{len(self.seen)} batches ({told}), more than its budget of {self.share:.0%}; "
                f"last failure: {last_failure}"
            )

    def recall(self, memory: FaultMemory) -> None:
        """Go on as remembered, with as many of the last batches as count."""
        self.silent = memory.silent
        causes = map(Counter, memory.causes)
        self.seen.extend(zip(causes, memory.sizes, strict=True))

    def _listen(self, statuses: Sequence[Status]) -> None:
        if not statuses or set(statuses) != {"abstained"}:
            self.silent = 0
            return
        self.silent += 1
        if self.silent_batches is not None and self.silent >= self.silent_batches:
            raise RewardError(
                f"reward '{self.name}' abstained from every sample of {self.silent} batches in a "
                "row, so nothing is learned; do the prompts carry what it reads?"
            )
