"""Python that somebody else wrote, in a process with limits.

Time, memory and file sizes are limited, the environment is empty and the folder a temporary one.
That stops accidents and runaway programs; it is no wall against an attacker: give untrusted models
a container of their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIMITS = """
import resource as _r
for _what, _bound in ((_r.RLIMIT_CPU, {cpu}), (_r.RLIMIT_AS, {memory}), (_r.RLIMIT_FSIZE, {file})):
    _r.setrlimit(_what, (_bound, _bound))
_r.setrlimit(_r.RLIMIT_CORE, (0, 0))
"""
"""Runs before the program, which cannot raise what is a hard limit."""
FILE_MIB = 64
MESSAGE = 400
"""Characters of an error that are kept."""


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    ok: bool
    output: str
    error: str
    timed_out: bool = False


def run_python(program: str, folder: Path, *, seconds: float, memory_mib: int = 4096) -> Finished:
    """Run `program` in `folder`; past `seconds` it and its children are killed."""
    limits = LIMITS.format(
        cpu=max(1, round(seconds)), memory=memory_mib * 2**20, file=FILE_MIB * 2**20
    )
    command = [sys.executable, "-I", "-c", limits + program]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Finished(False, "", f"took longer than {seconds:g} s", timed_out=True)
    finally:
        _kill(process)
    return Finished(process.returncode == 0, output, error.strip()[-MESSAGE:])


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
