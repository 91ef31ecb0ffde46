"""A training of a benchmark in a process of its own, kept where it is done already."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def train_once(output: Path, command: Sequence[str]) -> None:
    """`mmrl COMMAND output=OUTPUT` on one thread; a stopped run goes on, a finished one stays.

    RuntimeError with the end of what it said where it fails.
    """
    if (output / "model").exists():
        return
    started = (output / "config.yaml").exists()
    given = ["resume", str(output)] if started else [*command, f"output={output}"]
    done = subprocess.run(
        [sys.executable, "-m", "mmrl", *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{output.name}: {done.stderr[-2000:]}")
    print(f"{output.name}: done", file=sys.stderr, flush=True)
