"""Do two mathematical answers have the same value? Asked of math-verify, in a process that can end.

math-verify hands text to sympy, which may think for hours about one expression; it also sets alarms
that only work in a main thread. So it runs in a worker that is killed past a time limit.
"""

from __future__ import annotations

import atexit
import multiprocessing
import threading
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from mmrl.config import ConfigError

STARTUP_SECONDS = 60.0
"""How long importing sympy may take on a busy machine."""


class MathWorker:
    """One worker process, started on first use and again after it had to be killed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def equal(self, reference: str, answer: str, *, seconds: float) -> bool | None:
        r"""Whether the two have one value, "1/2" and "\frac{1}{2}" too; None past the time limit.

        ConfigError where math-verify is not installed.
        """
        with self.lock:
            pipe = self.pipe or self._start()
            pipe.send((reference, answer))
            if pipe.poll(seconds):
                try:
                    return pipe.recv()
                except EOFError:
                    pass
            self.stop()
            return None

    def stop(self) -> None:
        """Kill the worker, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = self.pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        atexit.register(self.stop)
        if not self.pipe.poll(STARTUP_SECONDS):
            self.stop()
            raise TimeoutError(f"math-verify did not start within {STARTUP_SECONDS:g} s")
        missing = self.pipe.recv()
        if missing:
            self.stop()
            raise ConfigError(f"needs math-verify ({missing}); `pip install 'mmrl[math]'`")
        return self.pipe


@cache
def shared_worker() -> MathWorker:
    """The one worker of this process; several rewards ask it in turn."""
    return MathWorker()


def _work(pipe: Connection) -> None:
    try:
        import math_verify
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send("")
    while True:
        try:
            reference, answer = pipe.recv()
        except EOFError:
            return
        try:
            gold = math_verify.parse(_as_latex(reference))
            found = math_verify.parse(_as_latex(answer))
            pipe.send(bool(math_verify.verify(gold, found)))
        except Exception:
            pipe.send(False)


def _as_latex(text: str) -> str:
    r"""In dollars, where math-verify reads LaTeX; plain numbers are read either way."""
    return text if "$" in text or "\\boxed" in text else f"${text}$"
