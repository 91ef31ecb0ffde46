"""A worker process as the server sees it: started, asked, killed when it hangs, started again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import weakref
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from mmrl.config import ConfigError
from mmrl.serve.config import ScorerConfig

logger = logging.getLogger(__name__)


class WorkerDiedError(RuntimeError):
    """The process ended in the middle of a call."""


class Worker:
    """One process. Not for two calls at once."""

    def __init__(self, name: str, config: ScorerConfig) -> None:
        self.name = name
        self.config = config
        self.process: Process | None = None
        self.scratch: Path | None = None
        """The process' own place for temporary files: a killed one cannot clear up."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> dict[str, str]:
        """Start the process; what it tells of its reward. ConfigError where it cannot start."""
        config = self.config
        asked = {
            "name": self.name,
            "reward": config.reward,
            "path": config.path,
            "fields": config.fields,
        }
        self._clear()
        self.scratch = Path(mkdtemp(prefix="mmrl-worker-"))
        weakref.finalize(self, rmtree, self.scratch, ignore_errors=True)
        own = {"TMPDIR": str(self.scratch)}
        try:
            self.process = await asyncio.create_subprocess_exec(
                config.python,
                "-m",
                "mmrl.serve.worker",
                stdin=PIPE,
                stdout=PIPE,
                env={**os.environ, **own, **config.environment},
            )
        except OSError as error:
            raise ConfigError(f"cannot run {config.python}: {error}", key=self._key) from error
        try:
            told = json.loads(await self._exchange(json.dumps(asked).encode(), self._patience))
        except (WorkerDiedError, TimeoutError) as error:
            await self.kill()
            raise ConfigError(f"its worker did not start: {error}", key=self._key) from error
        if "failed" in told:
            await self.kill()
            raise ConfigError(told["failed"], key=self._key)
        return told

    async def ask(self, message: bytes) -> dict[str, Any]:
        """The answer to one request; TimeoutError or WorkerDiedError leave it without a process."""
        if not self.alive:
            await self.start()
        try:
            return json.loads(await self._exchange(message, self.config.timeout_s))
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        """End the process now."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        self._clear()

    def _clear(self) -> None:
        if self.scratch is not None:
            rmtree(self.scratch, ignore_errors=True)

    @property
    def _key(self) -> str:
        return f"scorers.{self.name}"

    @property
    def _patience(self) -> float:
        return self.config.start_timeout_s

    async def _exchange(self, message: bytes, timeout_s: float) -> bytes:
        assert self.process is not None
        return await asyncio.wait_for(_roundtrip(self.process, message), timeout_s)


async def _roundtrip(process: Process, message: bytes) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(len(message).to_bytes(8, "big"))
        process.stdin.write(message)
        await process.stdin.drain()
        size = int.from_bytes(await process.stdout.readexactly(8), "big")
        return await process.stdout.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        code = await process.wait()
        raise WorkerDiedError(f"the worker ended with status {code}; its log says why") from error
