"""The same service on Ray Serve: `serve run mmrl.serve.ray_app:build file=scorers.yaml`.

Ray places the replicas on the machines of a cluster, routes between them and starts dead ones
again; inside a replica the scorer runs as it does under `mmrl serve`. Ray pickles between its own
processes; what comes from outside is the same JSON or safetensors.
"""

# pyright: reportMissingImports=false, reportFunctionMemberAccess=false, reportArgumentType=false
from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle

from mmrl.data.wire import ScoreResponse, TensorRequest, pack, unpack
from mmrl.serve.app import build_app
from mmrl.serve.config import ScorerConfig, read_token
from mmrl.serve.guard import Guard
from mmrl.serve.metrics import ServeMetrics
from mmrl.serve.pool import Pool
from mmrl.serve.run import load_serve_config

PATIENCE_S = 10.0
"""How long `/health` waits for a replica to say that it is there."""


class Replica:
    """One worker of a scorer; `workers` of the file is how many replicas Ray keeps."""

    async def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        config = ScorerConfig.model_validate({**fields, "workers": 1})
        self.pool = Pool(name, config, ServeMetrics())
        await self.pool.start()

    async def describe(self) -> Mapping[str, str]:
        """What the worker tells of its reward."""
        return await self.pool.describe()

    async def score(self, message: bytes) -> dict[str, Any]:
        """The response to one packed request."""
        header, arrays = unpack(message)
        return (await self.pool.score(TensorRequest.model_validate(header), arrays)).model_dump()


class RayBackend:
    """A scorer whose replicas may be anywhere in the cluster."""

    def __init__(self, name: str, handle: DeploymentHandle, metrics: ServeMetrics) -> None:
        self.name = name
        self.handle = handle
        self.metrics = metrics

    async def describe(self) -> Mapping[str, str]:
        """What one replica tells of its reward."""
        return await self.handle.describe.remote()

    async def alive(self) -> int:
        """1 where a replica answers, else 0: how many there are is Ray's to know."""
        try:
            await asyncio.wait_for(self.describe(), PATIENCE_S)
        except Exception:
            return 0
        return 1

    async def score(
        self, request: TensorRequest, arrays: Mapping[str, np.ndarray]
    ) -> ScoreResponse:
        """Scores of one request from one replica."""
        answer = await self.handle.score.remote(pack(request.model_dump(), arrays))
        response = ScoreResponse.model_validate(answer)
        self.metrics.scored(self.name, response.statuses)
        return response


def build(arguments: Mapping[str, str]) -> serve.Application:
    """The application of a service file, `file=PATH`; the token is read where this runs."""
    config = load_serve_config(Path(arguments["file"]), [])
    token, max_body = read_token(config.token_env), config.max_body
    replicas = {
        name: serve.deployment(
            Replica,
            name=name,
            num_replicas=scorer.workers,
            max_ongoing_requests=scorer.max_queue,
        ).bind(name, scorer.model_dump())
        for name, scorer in config.scorers.items()
    }

    def door() -> Guard:
        metrics = ServeMetrics()
        backends = {
            name: RayBackend(name, serve.get_deployment_handle(name), metrics) for name in replicas
        }
        return build_app(backends, token=token, max_body=max_body, metrics=metrics)

    class Door:
        def __init__(self, *scorers: DeploymentHandle) -> None:
            """Bound to its scorers, so that Ray starts them first."""

    return serve.deployment(serve.ingress(door)(Door), name="door").bind(*replicas.values())
