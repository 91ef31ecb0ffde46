"""The HTTP face of the scorers: health, capabilities, metrics, and two ways to ask for scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from mmrl import __version__
from mmrl.data.wire import (
    TENSOR_TYPE,
    VERSION,
    ScoreRequest,
    ScoreResponse,
    TensorRequest,
    WireError,
    check_tensors,
    to_tensors,
    unpack,
)
from mmrl.serve.guard import Guard
from mmrl.serve.metrics import ServeMetrics
from mmrl.serve.pool import Backend, QueueFullError, RequestTooLargeError


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: Any


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "right form, wrong contents: no PNG, a path, ..."},
    401: {"model": Problem, "description": "no valid token"},
    404: {"model": Problem, "description": "no such scorer"},
    413: {"model": Problem, "description": "the body is too large, or its samples are too many"},
    422: {"model": Problem, "description": "not the form of a request"},
    503: {"model": Problem, "description": "too many samples wait; ask again later"},
}


class UnknownScorerError(ValueError):
    """A request for a scorer that this service does not have."""


def build_app(
    backends: Mapping[str, Backend], *, token: str, max_body: int, metrics: ServeMetrics
) -> Guard:
    """The service over its scorers, which run already."""
    app = FastAPI(title="mmrl rewards", version=__version__, docs_url=None, redoc_url=None)
    _add_state(app, backends, max_body, metrics)
    _add_scores(app, backends)
    _add_refusals(app)
    return Guard(app, token, max_body, metrics)  # pyright: ignore[reportArgumentType]


def _add_state(
    app: FastAPI, backends: Mapping[str, Backend], max_body: int, metrics: ServeMetrics
) -> None:
    @app.get("/health")
    async def health(response: Response) -> dict[str, Any]:
        """Whether every scorer has a worker that runs; 503 otherwise."""
        alive = {name: await backend.alive() for name, backend in backends.items()}
        well = all(alive.values())
        response.status_code = 200 if well else 503
        return {"status": "ok" if well else "degraded", "workers": alive}

    @app.get("/capabilities", responses={401: REFUSALS[401]})
    async def capabilities() -> dict[str, Any]:
        """What can be asked."""
        return {
            "version": VERSION,
            "mmrl": __version__,
            "encodings": ["png", "float32"],
            "max_body_bytes": max_body,
            "scorers": {name: dict(await b.describe()) for name, b in backends.items()},
        }

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: REFUSALS[401]})
    async def prometheus() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_scores(app: FastAPI, backends: Mapping[str, Backend]) -> None:
    async def ask(request: TensorRequest, arrays: Mapping[str, np.ndarray]) -> ScoreResponse:
        backend = backends.get(request.scorer)
        if backend is None:
            known = ", ".join(sorted(backends))
            raise UnknownScorerError(f"no scorer named {request.scorer!r} (known: {known})")
        check_tensors(request, arrays)
        return await backend.score(request, arrays)

    @app.post("/v1/score", responses=REFUSALS)
    async def score(request: ScoreRequest) -> ScoreResponse:
        """Score samples whose pictures are PNG files in base64."""
        return await ask(*await run_in_threadpool(to_tensors, request))

    body = {"content": {TENSOR_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    extra = {"requestBody": {**body, "required": True}}

    @app.post("/v1/score/tensors", responses=REFUSALS, openapi_extra=extra)
    async def score_tensors(request: Request) -> ScoreResponse:
        """Score samples of a safetensors body whose metadata `header` is the request as JSON."""
        header, arrays = await run_in_threadpool(unpack, await request.body())
        return await ask(TensorRequest.model_validate(header), arrays)


def _add_refusals(app: FastAPI) -> None:
    """Errors tell where and what, and never repeat what was sent: it may be huge, or no JSON."""

    def plain(status: int, detail: Any) -> Response:
        return JSONResponse(json.loads(json.dumps({"detail": detail})), status)

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def wrong_form(request: Request, error: Any) -> Response:
        found = [
            {"loc": [ascii(part) for part in issue["loc"]], "msg": ascii(issue["msg"])[1:-1]}
            for issue in error.errors()[:20]
        ]
        return plain(422, found)

    @app.exception_handler(WireError)
    async def wrong_contents(request: Request, error: WireError) -> Response:
        return plain(400, ascii(str(error))[1:-1])

    @app.exception_handler(UnknownScorerError)
    async def unknown_scorer(request: Request, error: UnknownScorerError) -> Response:
        return plain(404, ascii(str(error))[1:-1])

    @app.exception_handler(RequestTooLargeError)
    async def too_large(request: Request, error: RequestTooLargeError) -> Response:
        return plain(413, ascii(str(error))[1:-1])

    @app.exception_handler(QueueFullError)
    async def full(request: Request, error: QueueFullError) -> Response:
        response = plain(503, str(error))
        response.headers["Retry-After"] = "1"
        return response
