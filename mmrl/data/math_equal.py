"""Do two mathematical answers have the same value? Asked of math-verify, in a process that can end.

math-verify hands text to sympy, which may think for hours about one expression, and its own time
limit makes a slow comparison a wrong answer. So that limit is off, and it runs in a worker that is
killed past ours.
"""

from __future__ import annotations

import atexit
import multiprocessing
import re
import threading
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from mmrl.config import ConfigError
from mmrl.data.text_match import as_number

STARTUP_SECONDS = 60.0
"""How long importing sympy may take on a busy machine."""

LITERAL = re.compile(
    r"(?P<sign>-?)\(?(?P<digits>[0-9A-Fa-f]++)\)?\s*+_\s*+\{?\s*+(?:\\text\{)?"
    r"(?P<base>[0-9]{1,2}|[A-Za-z]++)\}{0,2}"
)
NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
BASES = dict(zip(NAMES, range(2, 11), strict=True)) | {"twelve": 12, "sixteen": 16}


class MathWorker:
    """One worker process, started on first use and again after it had to be killed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def equal(self, reference: str, answer: str, *, seconds: float) -> bool | None:
        r"""Whether the two have one value, as "1/2" and "\frac{1}{2}" have.

        None past the time limit, and where math-verify itself fails or its process ends: that says
        nothing about the answer. ConfigError where math-verify is not installed.
        """
        with self.lock:
            pipe = self.pipe or self._start()
            try:
                pipe.send((reference, answer))
                if pipe.poll(seconds):
                    return pipe.recv()
            except (EOFError, OSError):
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
    worker = MathWorker()
    atexit.register(worker.stop)
    return worker


def same_value(reference: str, answer: str, *, seconds: float) -> bool | None:
    """As `MathWorker.equal`, of the one worker; a number and one in another base are not equal.

    math-verify itself takes 101_2 for 101.
    """
    literals = base_literal(reference), base_literal(answer)
    if literals != (None, None):
        return literals[0] == literals[1]
    return shared_worker().equal(reference, answer, seconds=seconds)


def graded(answer: str, reference: str, *, seconds: float) -> bool | None:
    """Equal in text, blanks aside; as exact numbers, where both are some; else by `same_value`.

    Of two numbers "50%" is 50 and units do not count (`mmrl.data.text_match.as_number`). None
    where math-verify cannot tell.
    """
    if "".join(answer.split()) == "".join(reference.split()):
        return bool(answer.strip())
    found, expected = as_number(answer), as_number(reference)
    if found is not None and expected is not None:
        return found == expected
    return same_value(reference, answer, seconds=seconds)


def base_literal(text: str) -> tuple[str, int] | None:
    r"""Digits and base of 101_2, (101)_{2} or 101_{\text{two}}; None without a base, and for 10."""
    found = LITERAL.fullmatch(text.rpartition("=")[2].replace("$", "").strip())
    if found is None:
        return None
    digits, base = found["digits"].upper().lstrip("0") or "0", BASES.get(found["base"].lower())
    base = base or (int(found["base"]) if found["base"].isdecimal() else 0)
    valid = 2 <= base <= 16 and base != 10 and all(int(digit, 16) < base for digit in digits)
    return (found["sign"] + digits, base) if valid else None


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
            gold, found = (
                math_verify.parse(_as_latex(text), parsing_timeout=0)
                for text in (reference, answer)
            )
            pipe.send(bool(math_verify.verify(gold, found, timeout_seconds=0)))
        except Exception:
            pipe.send(None)


def _as_latex(text: str) -> str:
    r"""In dollars, where math-verify reads LaTeX; plain numbers are read either way."""
    return text if "$" in text or "\\boxed" in text else f"${text}$"
