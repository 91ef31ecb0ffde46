"""What `/metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServeMetrics:
    """Counters of one service; nothing is shared with other services of the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        scorer = ["scorer"]
        self.responses = Counter(
            "mmrl_responses", "Responses by status code", ["status"], registry=self.registry
        )
        self.samples = Counter(
            "mmrl_samples",
            "Samples by how they ended",
            ["scorer", "status"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "mmrl_worker_failures", "Calls a worker did not survive", scorer, registry=self.registry
        )
        self.busy = Gauge("mmrl_calls_under_way", "Calls now", scorer, registry=self.registry)
        self.batch = Histogram(
            "mmrl_call_samples", "Samples a call", scorer, buckets=BATCHES, registry=self.registry
        )
        self.seconds = Histogram(
            "mmrl_call_seconds", "Seconds a call", scorer, registry=self.registry
        )

    def responded(self, status: int) -> None:
        """Count one response."""
        self.responses.labels(str(status)).inc()

    def scored(self, scorer: str, statuses: Sequence[str]) -> None:
        """Count samples by how they ended."""
        for status in set(statuses):
            self.samples.labels(scorer, status).inc(statuses.count(status))

    def restarted(self, scorer: str) -> None:
        """Count a call whose worker had to be killed or died."""
        self.restarts.labels(scorer).inc()

    @contextmanager
    def call(self, scorer: str, samples: int) -> Iterator[None]:
        """Time one call and count its samples."""
        self.batch.labels(scorer).observe(samples)
        busy = self.busy.labels(scorer)
        with busy.track_inprogress(), self.seconds.labels(scorer).time():
            yield

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)
