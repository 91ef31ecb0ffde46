"""`mmrl serve FILE`: read the file, check the token, serve until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrl.config import UserError, apply_overrides, numbers_as_floats, parse, read_yaml
from mmrl.serve.config import ServeConfig, read_token

if TYPE_CHECKING:
    import uvicorn

    from mmrl.serve.pool import Pool


def load_serve_config(file: Path, overrides: list[str]) -> ServeConfig:
    """The service's config; ConfigError names the first wrong key."""
    return parse(ServeConfig, numbers_as_floats(apply_overrides(read_yaml(file), overrides)))


def serve(config: ServeConfig, say: Callable[[str], None] = print) -> None:
    """Serve the scorers. UserError where a package is missing or a scorer cannot start."""
    token = read_token(config.token_env)
    try:
        import uvicorn

        from mmrl.serve.app import build_app
        from mmrl.serve.metrics import ServeMetrics
    except ImportError as error:
        raise UserError(f"mmrl serve needs `pip install 'mmrl[serve]'`: {error}") from error
    from mmrl.serve.pool import Pool

    metrics = ServeMetrics()
    pools = {name: Pool(name, scorer, metrics) for name, scorer in config.scorers.items()}
    app = build_app(pools, token=token, max_body=config.max_body, metrics=metrics)
    server = uvicorn.Server(
        uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType]
            host=config.host,
            port=config.port,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it is done
        signal.signal(number, lambda *_: None)
    asyncio.run(_serve(server, list(pools.values()), say))


async def _serve(server: uvicorn.Server, pools: Sequence[Pool], say: Callable[[str], None]) -> None:
    try:
        await asyncio.gather(*(pool.start() for pool in pools))
        for pool in pools:
            say(f"scorer '{pool.name}' runs in {len(pool.workers)} processes")
        serving = asyncio.create_task(server.serve())
        while not (server.started or serving.done()):
            await asyncio.sleep(0.02)
        if server.started:
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            say(f"serving at http://{host}:{port}")
        await serving
    finally:
        for pool in pools:
            await pool.stop()
