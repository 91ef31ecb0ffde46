"""Requests that wait for a worker, in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmrl.data.wire import TensorRequest


@dataclass
class Job:
    """One request, or as much of it as fits into one call."""

    request: TensorRequest
    arrays: Mapping[str, np.ndarray]
    answer: asyncio.Future[dict[str, Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def __len__(self) -> int:
        return len(self.request.samples)


class JobQueue:
    """A job that does not fit into a worker's call stays first, where every worker sees it."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()

    def put(self, job: Job) -> None:
        """Last in the queue."""
        self._jobs.append(job)
        self._arrived.set()

    async def take(self) -> Job:
        """The first job, waited for."""
        while not self._jobs:
            self._arrived.clear()
            await self._arrived.wait()
        return self._jobs.popleft()

    async def take_fitting(self, room: int, deadline: float) -> Job | None:
        """The first job if it has at most `room` samples; None if not, or none comes in time.

        `deadline` is in the event loop's seconds.
        """
        while not self._jobs:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return None
        return self._jobs.popleft() if len(self._jobs[0]) <= room else None
