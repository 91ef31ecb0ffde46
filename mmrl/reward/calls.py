"""One call of a reward: within a time limit, in a thread or on a loop; what it returns, checked."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class WrongScoresError(ValueError):
    """What a call returned is not one real number a sample."""


def call_within(
    reward: Callable[..., Any], given: Any, timeout_s: float, busy: threading.Lock
) -> Any:
    """`reward(given)` in a thread of its own; TimeoutError after `timeout_s` seconds.

    Python cannot stop a thread. One that is past its limit goes on and holds `busy`, so that no
    reward is ever called twice at once; what it returns in the end is dropped.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        if not busy.acquire(timeout=timeout_s):
            return
        try:
            with torch.no_grad():
                answers.put((reward(given), None))
        except BaseException as error:
            answers.put((None, error))
        finally:
            busy.release()

    threading.Thread(target=run, daemon=True, name="reward").start()
    try:
        value, error = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return value


@lru_cache(maxsize=1)
def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of all async rewards, in a thread of its own where no gradient is recorded."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        torch.set_grad_enabled(False)
        loop.run_forever()

    threading.Thread(target=run, daemon=True, name="rewards").start()
    return loop


def run_without_loop(coroutine: Any) -> Any:
    """The result of a coroutine that never waits for a loop: that of a sync reward."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a sync reward waited for an event loop")


def to_scores(result: Any, count: int) -> Float[Tensor, " B"]:
    """What a call returned as `count` float32 values; None becomes NaN.

    WrongScoresError for another number of values, and for what is no real number.
    """
    if result is None or isinstance(result, int | float):
        result = [result]
    if isinstance(result, Sequence):
        result = [math.nan if value is None else value for value in result]
    try:
        values = torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongScoresError(f"returned {_short(result)} instead of numbers") from error
    if values.is_complex():
        raise WrongScoresError("returned complex numbers")
    if values.ndim == 0:
        values = values[None]
    if values.shape != (count,):
        raise WrongScoresError(f"returned {tuple(values.shape)} for {count} samples")
    return values.detach().float().cpu()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
