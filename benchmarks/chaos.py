"""A proxy before a reward service that spoils a share of the calls, in five ways."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from benchmarks.serving import free_port

FAULTS = ("hang", "raise", "nan", "wrong_length", "http_500")


@dataclass
class Chaos:
    """A proxy to the service that spoils calls at a rate, with a seed, and counts what it did."""

    target: str
    rate: float
    seed: int = 0
    hang_s: float = 6.0
    """How long a hanging call waits: longer than the client does."""
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.client = httpx2.AsyncClient(verify=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await (await self.answer(Request(scope, receive)))(scope, receive, send)
        for stage in ("startup", "shutdown") if scope["type"] == "lifespan" else ():
            await receive()
            if stage == "shutdown":
                await self.client.aclose()
            await send({"type": f"lifespan.{stage}.complete"})

    async def answer(self, request: Request) -> Response:
        """The service's answer, or a spoiled one."""
        fault = self.random.choice(FAULTS) if self.random.random() < self.rate else "none"
        body = await request.body()
        if fault == "hang":
            self.counts[fault] += 1
            await asyncio.sleep(self.hang_s)
            return Response(status_code=500)
        if fault == "http_500":
            self.counts[fault] += 1
            return Response(status_code=500)
        headers = {key: request.headers[key] for key in ("authorization", "content-type")}
        try:
            url = self.target + request.url.path
            found = await self.client.post(url, content=body, headers=headers, timeout=60)
        except httpx2.TransportError:
            self.counts["outage"] += 1
            return Response(status_code=502)
        self.counts[fault] += 1
        return JSONResponse(spoiled(found.json(), fault))


def spoiled(answer: dict[str, Any], fault: str) -> dict[str, Any]:
    """The answer as a broken scorer would have given it."""
    if fault == "raise":
        return {**answer, "scores": [None], "statuses": ["error"], "reason": "injected"}
    if fault == "nan":
        return {**answer, "scores": [None], "statuses": ["abstained"]}
    if fault == "wrong_length":
        return {**answer, "scores": answer["scores"] * 2, "statuses": answer["statuses"] * 2}
    return answer


@contextmanager
def proxy(target: str, rate: float, seed: int = 0) -> Iterator[tuple[Chaos, str]]:
    """The proxy and its address, in a thread of this process."""
    chaos, port = Chaos(target, rate, seed), free_port()
    config = uvicorn.Config(
        chaos,
        port=port,
        log_level="error",
        lifespan="on",
        loop="asyncio",
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield chaos, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
