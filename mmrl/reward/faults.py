"""What happens when a reward fails: limits, retries, waits, a budget. Never a score."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from mmrl.config import Config
from mmrl.reward.base import RewardError

Status = Literal["ok", "abstained", "timeout", "error", "unavailable", "skipped"]
"""How the scoring of one sample ended. All but the first mean NaN."""
FAILED: tuple[Status, ...] = ("timeout", "error", "unavailable")
"""What spends budget. `abstained` is no failure: the reward itself said that it cannot judge the
sample. Nor is `skipped`: nobody asked, and the outage that kept it from being asked has failed."""
AWAY: tuple[Status, ...] = ("timeout", "unavailable", "skipped")
"""What a batch is made of to which the reward gave no answer at all."""
MAX_BACKOFF_S = 30.0


class FaultPolicy(Config):
    """`faults:` of one reward, or of all. A sample that stays without a score is NaN."""

    timeout_s: float | None = Field(default=None, gt=0)
    """Longest time of one call; null waits for ever."""
    retries: int = Field(default=2, ge=0)
    """Further attempts after a call that failed. An outage of a trained reward costs none."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first retry of an unavailable reward; doubles each time, up to 30 s."""
    breaker_after: int = Field(default=5, ge=1)
    """Calls in a row that found the reward unavailable before nothing but probes are asked; calls
    that fail side by side are one."""
    breaker_rest_s: float = Field(default=30.0, ge=0)
    """Longest wait for the next probe; waits double from `backoff_s` up to this."""
    outage_s: float = Field(default=300.0, ge=0)
    """Longest outage of a trained reward that a run waits for; then it ends. 0: no waiting."""
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
    """What a run has seen of a reward's failures, as far as a resumed run must know it.

    Breakers are not remembered: whether the reward is there is asked anew.
    """

    silent: int = 0
    """Batches in a row of nothing but abstentions."""
    causes: Sequence[Mapping[Status, int]] = ()
    """Failures by status of the budget's last batches."""
    sizes: Sequence[int] = ()
    """Samples of each of them that the reward was asked about."""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> FaultMemory:
        """From a checkpoint, an older one too; what is not remembered any more is left out."""
        return cls(kept["silent"], kept["causes"], kept["sizes"])


@dataclass
class Budget:
    """Failed samples of the last batches in which the reward was asked; RewardError where they pass
    the allowed share.

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
        asked = sum(status != "skipped" for status in statuses)
        if asked:
            self.seen.append((Counter(s for s in statuses if s in FAILED), asked))
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
