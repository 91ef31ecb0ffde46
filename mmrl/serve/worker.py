"""One process that runs one reward: requests come on stdin, scores go to stdout.

`python -m mmrl.serve.worker`. A message is its length in 8 bytes, then its bytes: JSON first, then
a `TensorRequest` as safetensors for each call. It imports mmrl.reward and mmrl.data only, so the
environment needs no web framework.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from mmrl.config import ConfigError
from mmrl.data.files import SERVED
from mmrl.data.wire import TensorRequest, unpack
from mmrl.data.wire_samples import read_samples
from mmrl.reward import FaultPolicy, Scorer, reward_class
from mmrl.reward.base import unit_of
from mmrl.reward.scored import Scored

PATIENT = FaultPolicy(retries=0, breaker_after=10**9, budget=1.0, silent_batches=10**9)
"""Retries, breaker and budget are the client's: it knows what a missing score costs."""


def main() -> None:
    """Build the reward that the first message names, then score until stdin ends."""
    stdin, stdout = sys.stdin.buffer, _own_stdout()
    os.environ[SERVED] = "1"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    first = read_message(stdin)
    if first is None:
        return
    try:
        name, scorer, about = build(json.loads(first))
    except Exception as error:
        write_message(stdout, json.dumps({"failed": f"{error}"}).encode())
        return
    write_message(stdout, json.dumps(about).encode())
    while (message := read_message(stdin)) is not None:
        write_message(stdout, json.dumps(score(name, scorer, message)).encode())


def build(asked: dict[str, Any]) -> tuple[str, Scorer, dict[str, str]]:
    """The reward, and what `/capabilities` tells of it."""
    name = asked["name"]
    cls = reward_class(asked["reward"] or name, asked["path"])
    reward = cls.model_validate(asked["fields"])
    summary = (cls.__doc__ or "").strip().split("\n")[0]
    scorer = Scorer(name, reward, PATIENT, waits=False)
    return name, scorer, {"unit": unit_of(reward), "summary": summary}


def score(name: str, scorer: Scorer, message: bytes) -> dict[str, Any]:
    """Scores and statuses of one request; a sample that fails costs no other its score."""
    header, arrays = unpack(message)
    request = TensorRequest.model_validate(header)
    with tempfile.TemporaryDirectory(prefix="mmrl-") as folder:
        samples = read_samples(request, arrays, Path(folder))
        try:
            found = scorer.score(samples, max(1, len(samples)))
        except ConfigError as error:
            found = Scored.failed("error", len(samples), str(error))
    values = found.values.tolist()
    ended = list(zip(values, found.statuses, strict=True))
    return {
        "scores": [value if status == "ok" else None for value, status in ended],
        "statuses": [status for _, status in ended],
        "reason": next(filter(None, found.reasons), ""),
    }


def read_message(source: BinaryIO) -> bytes | None:
    """The next message; None where the other side has closed."""
    length = source.read(8)
    if len(length) < 8:
        return None
    size = int.from_bytes(length, "big")
    message = source.read(size)
    return message if len(message) == size else None


def write_message(sink: BinaryIO, message: bytes) -> None:
    """One message, at once."""
    sink.write(len(message).to_bytes(8, "big") + message)
    sink.flush()


def _own_stdout() -> BinaryIO:
    """The pipe to the server; what a reward prints goes to stderr instead."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _end_with(parent: int) -> None:
    """A call that never ends must not outlive a server that was killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main()
