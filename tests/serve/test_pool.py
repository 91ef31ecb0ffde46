"""The queue before the workers of a scorer: nobody is idle beside a job, none waits for ever."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from mmrl.data.wire import TensorRequest
from mmrl.serve.config import ScorerConfig
from mmrl.serve.jobs import Job, JobQueue
from mmrl.serve.metrics import ServeMetrics
from mmrl.serve.pool import Pool, RequestTooLargeError
from tests.serve.conftest import SCORERS


def request(count: int) -> TensorRequest:
    sample = {"kind": "text", "prompt": {"text": "q"}, "text": "x"}
    tree = {"version": 1, "scorer": "whoami", "samples": [sample] * count}
    return TensorRequest.model_validate(tree)


def test_a_job_that_does_not_fit_beside_another_goes_to_the_other_worker() -> None:
    """20 and 20 samples, 32 a call: each worker scores one, and says who it is."""
    config = ScorerConfig(path=f"{SCORERS}:whoami", workers=2, max_batch=32, max_wait_ms=50)

    async def run() -> list[set[float | None]]:
        pool = Pool("whoami", config, ServeMetrics())
        await pool.start()
        try:
            answers = await asyncio.gather(*(pool.score(request(20), {}) for _ in range(2)))
        finally:
            await pool.stop()
        return [set(answer.scores) for answer in answers]

    first, second = asyncio.run(run())
    assert len(first) == len(second) == 1 and first != second


def test_a_job_too_large_for_the_room_stays_first_for_the_next_who_asks() -> None:
    async def run() -> list[int | None]:
        queue, soon = JobQueue(), asyncio.get_running_loop().time() + 5
        for count in (20, 20, 1):
            queue.put(Job(request(count), {}))
        taken = [await queue.take(), await queue.take_fitting(12, soon), await queue.take()]
        taken += [await queue.take_fitting(12, soon), await queue.take_fitting(12, soon - 10)]
        return [None if job is None else len(job) for job in taken]

    assert asyncio.run(run()) == [20, None, 20, 1, None]


def test_a_worker_that_waits_gets_the_job_that_comes() -> None:
    async def run() -> list[int]:
        queue = JobQueue()
        takers = [asyncio.create_task(queue.take()) for _ in range(2)]
        await asyncio.sleep(0)
        for count in (3, 4):
            queue.put(Job(request(count), {}))
        return sorted(map(len, await asyncio.gather(*takers)))

    assert asyncio.run(run()) == [3, 4]


def test_a_request_that_could_never_wait_is_refused_and_not_put_off() -> None:
    config = ScorerConfig(path=f"{SCORERS}:whoami", max_queue=8)

    async def run() -> None:
        await Pool("whoami", config, ServeMetrics()).score(request(9), {})

    with pytest.raises(RequestTooLargeError, match=r"9 samples in one request; .* at most 8"):
        asyncio.run(run())


def test_a_worker_that_is_killed_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed in the middle of a call, whose pictures lie in a folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = ScorerConfig(path=f"{SCORERS}:length", timeout_s=1.0)

    async def run() -> list[str]:
        pool = Pool("length", config, ServeMetrics())
        await pool.start()
        sample = {"kind": "text", "prompt": {"text": "q"}, "text": "hang"}
        tree = {"version": 1, "scorer": "length", "samples": [sample]}
        call = asyncio.create_task(pool.score(TensorRequest.model_validate(tree), {}))
        while not list(tmp_path.glob("*/*")):
            await asyncio.sleep(0.02)
        statuses = (await call).statuses
        assert not list(tmp_path.glob("*/*"))
        await pool.stop()
        return statuses

    assert asyncio.run(run()) == ["timeout"]
    assert not list(tmp_path.iterdir())
