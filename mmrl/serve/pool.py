"""All workers of one scorer, and the queue they draw from: samples of many clients in one call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmrl.config import ConfigError
from mmrl.data.wire import VERSION, ScoreResponse, TensorRequest, TensorVideo, pack
from mmrl.serve.config import ScorerConfig
from mmrl.serve.jobs import Job, JobQueue
from mmrl.serve.metrics import ServeMetrics
from mmrl.serve.process import Worker, WorkerDiedError

logger = logging.getLogger(__name__)


class QueueFullError(RuntimeError):
    """More samples wait than the scorer's `max_queue`."""


class RequestTooLargeError(ValueError):
    """More samples in one request than may ever wait: asking again would not help."""


class Backend(Protocol):
    """What scores one scorer's requests."""

    async def describe(self) -> Mapping[str, str]: ...
    async def alive(self) -> int: ...
    async def score(
        self, request: TensorRequest, arrays: Mapping[str, np.ndarray]
    ) -> ScoreResponse: ...


class Pool:
    """Workers that take whatever waits, up to `max_batch` samples a call.

    Requests to a reward of unit "group" are groups: never cut, never joined. A call of several
    requests that hangs or kills its worker is repeated request by request, so that the one to blame
    costs the others no score.
    """

    def __init__(self, name: str, config: ScorerConfig, metrics: ServeMetrics) -> None:
        self.name = name
        self.config = config
        self.metrics = metrics
        self.about: Mapping[str, str] = {}
        self.workers = [Worker(name, config) for _ in range(config.workers)]
        self.jobs = JobQueue()
        self.waiting = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def describe(self) -> Mapping[str, str]:
        """What the workers tell of their reward."""
        return self.about

    async def alive(self) -> int:
        """Workers that run."""
        return sum(worker.alive for worker in self.workers)

    async def start(self) -> None:
        """Start every worker; ConfigError where one cannot."""
        told = await asyncio.gather(*(worker.start() for worker in self.workers))
        self.about = told[0]
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in self.workers]

    async def stop(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self.workers))

    async def score(
        self, request: TensorRequest, arrays: Mapping[str, np.ndarray]
    ) -> ScoreResponse:
        """Scores of one request; QueueFullError where too many samples wait already."""
        count = len(request.samples)
        if count > self.config.max_queue:
            raise RequestTooLargeError(
                f"{count} samples in one request; scorer '{self.name}' takes at most "
                f"{self.config.max_queue} (max_queue)"
            )
        if self.waiting + count > self.config.max_queue:
            raise QueueFullError(f"{self.waiting} samples wait for scorer '{self.name}'")
        jobs = [Job(part, arrays) for part in self._parts(request)]
        self.waiting += count
        for job in jobs:
            self.jobs.put(job)
        try:
            answers = await asyncio.gather(*(job.answer for job in jobs))
        finally:
            self.waiting -= count
        statuses = [status for answer in answers for status in answer["statuses"]]
        self.metrics.scored(self.name, statuses)
        return ScoreResponse(
            scorer=self.name,
            scores=[value for answer in answers for value in answer["scores"]],
            statuses=statuses,
            reason=next((answer["reason"] for answer in answers if answer["reason"]), ""),
        )

    def _parts(self, request: TensorRequest) -> list[TensorRequest]:
        size = self.config.max_batch
        samples = request.samples
        if not samples or self.about["unit"] == "group" or len(samples) <= size:
            return [request] if samples else []
        cut = [samples[start : start + size] for start in range(0, len(samples), size)]
        return [request.model_copy(update={"samples": part}) for part in cut]

    async def _serve(self, worker: Worker) -> None:
        while True:
            jobs = await self._take()
            answer = await self._ask(worker, jobs)
            if answer["statuses"][:1] in (["timeout"], ["unavailable"]) and len(jobs) > 1:
                for job in jobs:
                    _answer([job], await self._ask(worker, [job]))
            else:
                _answer(jobs, answer)
            if not worker.alive:
                await self._revive(worker)

    async def _revive(self, worker: Worker) -> None:
        """Start a worker again before the next request needs it; one that cannot waits for it."""
        try:
            await worker.start()
        except ConfigError as error:
            logger.warning("scorer '%s': %s", self.name, error)

    async def _take(self) -> list[Job]:
        """The next job, and those that come within `max_wait_ms` and fit beside it."""
        jobs = [await self.jobs.take()]
        if self.about["unit"] == "group":
            return jobs
        deadline = asyncio.get_running_loop().time() + self.config.max_wait_ms / 1000
        while (room := self.config.max_batch - sum(map(len, jobs))) > 0:
            job = await self.jobs.take_fitting(room, deadline)
            if job is None:
                break
            jobs.append(job)
        return jobs

    async def _ask(self, worker: Worker, jobs: Sequence[Job]) -> dict[str, Any]:
        count = sum(map(len, jobs))
        with self.metrics.call(self.name, count):
            try:
                return await worker.ask(pack(*joined(self.name, jobs)))
            except TimeoutError:
                status, reason = "timeout", f"no answer within {self.config.timeout_s:g} s"
            except (WorkerDiedError, ConfigError) as error:
                status, reason = "unavailable", str(error)
            except Exception as error:
                logger.exception("scorer '%s'", self.name)
                status, reason = "error", f"{type(error).__name__}: {error}"
        self.metrics.restarted(self.name)
        logger.warning("scorer '%s': %s", self.name, reason)
        return {"scores": [None] * count, "statuses": [status] * count, "reason": reason}


def _answer(jobs: Sequence[Job], answer: Mapping[str, Any]) -> None:
    """Hand each job its part of one call's answer."""
    start = 0
    for job in jobs:
        part = slice(start, start + len(job))
        start += len(job)
        if not job.answer.done():
            told = {key: answer[key][part] for key in ("scores", "statuses")}
            job.answer.set_result({**told, "reason": answer["reason"]})


def joined(name: str, jobs: Sequence[Job]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The samples of all jobs as one request, each job's tensors under names of their own."""
    samples: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for job in jobs:
        known: dict[str, str] = {}
        for sample in job.request.samples:
            tree = sample.model_dump()
            recorded = [names[0] for names in sample.prompt.videos]
            for key in [*sample.prompt.images, *recorded, *_videos(sample)]:
                if key not in known:
                    known[key] = str(len(arrays))
                    arrays[known[key]] = job.arrays[key]
            tree["prompt"]["images"] = [known[key] for key in sample.prompt.images]
            tree["prompt"]["videos"] = [[known[key]] for key in recorded]
            if isinstance(sample, TensorVideo):
                tree["video"] = known[sample.video]
            samples.append(tree)
    return {"version": VERSION, "scorer": name, "samples": samples}, arrays


def _videos(sample: object) -> list[str]:
    return [sample.video] if isinstance(sample, TensorVideo) else []
