"""Signals that end a run after the step it is in, saved."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

EXIT_STOPPED = 75
"""Exit status of a run that a signal stopped after it saved (EX_TEMPFAIL: start it again)."""
NOTICE = "stopping after this step; Ctrl-C again ends at once"


@dataclass
class StopFlag:
    """Whether a signal asked the run to end at the next step."""

    raised: bool = False
    quiet: bool = False
    """Whether Ctrl-C is answered without a line, as on all processes but one."""


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """SIGTERM, SIGUSR1 and the first SIGINT raise the flag instead of ending the process.

    The first SIGINT is answered at once by a line on stderr; the second is a KeyboardInterrupt,
    and the third kills, whatever still waits.
    """
    flag = StopFlag()

    def raise_flag(number: int, frame: FrameType | None) -> None:
        flag.raised = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        flag.raised = True
        signal.signal(signal.SIGINT, interrupt_again)
        if not flag.quiet:
            _tell(NOTICE)

    def interrupt_again(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    handlers = {**dict.fromkeys(_signals(), raise_flag), signal.SIGINT: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield flag
    finally:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            before.pop(signal.SIGINT)
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(line: str) -> None:
    """A line on stderr past Python's buffers, which a handler must not enter a second time."""
    begin = "\n" if sys.stderr.isatty() else ""
    os.write(2, f"{begin}{line}\n".encode())


def _signals() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGUSR1")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
