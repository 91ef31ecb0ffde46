"""Start `mmrl serve` in a process of its own, for measurements and tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOKEN_ENV, TOKEN = "MMRL_REWARD_TOKEN", "a-token-of-this-machine"
MMRL = [sys.executable, "-c", "from mmrl.cli import main; main()"]


@dataclass(frozen=True)
class Service:
    """A service that answers."""

    url: str
    process: subprocess.Popen[str]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(config: Mapping[str, Any], folder: Path) -> Service:
    """The service, from the moment it answers; this process may ask it too."""
    os.environ[TOKEN_ENV] = TOKEN
    file, log = folder / "serve.yaml", folder / "serve.log"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*MMRL, "serve", str(file)], env=environment, stdout=sink, stderr=sink, text=True
        )
    deadline = time.monotonic() + 120
    while "serving at " not in (told := log.read_text("utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service did not start: {told}")
        time.sleep(0.05)
    return Service(told.split("serving at ")[1].split()[0], process)


@contextmanager
def running(config: Mapping[str, Any], folder: Path) -> Iterator[Service]:
    """The service while the block runs."""
    service = start(config, folder)
    try:
        yield service
    finally:
        service.process.terminate()
        service.process.wait(timeout=30)
