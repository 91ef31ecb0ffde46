"""What a failed call says: in one line, with the place in the user's file, and once a batch."""

from __future__ import annotations

import logging
import sysconfig
import traceback
from collections import Counter
from pathlib import Path

import mmrl
from mmrl.reward.faults import Status

logger = logging.getLogger(__name__)
LONGEST = 500
"""Characters of an exception's message that are told."""
OURS = Path(mmrl.__file__).parent
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
INSTALLED = {"site-packages", "dist-packages"}


def words_of(error: Exception) -> str:
    """An exception in a line: `KeyError: 'zz' (my_rewards.py:12)`.

    Exceptions of mmrl were written to be read, and stand as they are.
    """
    message = " ".join(str(error).split())[:LONGEST]
    if type(error).__module__.partition(".")[0] == OURS.name:
        return message or type(error).__name__
    words = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = place_of(error)
    return f"{words} ({place})" if place else words


def place_of(error: Exception) -> str:
    """`file.py:12` of the last frame outside mmrl and installed packages; empty without one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(Path(frame.filename))]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


class FailureLog:
    """The failures of one batch: the first of a kind is logged at once, the others are counted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._counts: Counter[tuple[Status, str, str]] = Counter()
        self._first: dict[tuple[Status, str, str], str] = {}

    def note(self, status: Status, error: Exception) -> str:
        """The failure's words. A kind is a status, a type and a place: messages may differ."""
        words = words_of(error)
        kind = (status, type(error).__name__, place_of(error))
        self._counts[kind] += 1
        if kind not in self._first:
            self._first[kind] = words
            logger.warning("reward '%s': %s: %s", self.name, status, words)
        return words

    def close(self) -> None:
        """Tell how many calls more failed in each way, and begin anew."""
        for kind, count in self._counts.items():
            if count > 1:
                told = (self.name, count - 1, kind[0], self._first[kind])
                logger.warning("reward '%s', %d more calls: %s: %s", *told)
        self._counts.clear()
        self._first.clear()


def _is_users(file: Path) -> bool:
    if not file.is_absolute() or INSTALLED & set(file.parts):
        return False
    return not {OURS, STANDARD_LIBRARY} & set(file.parents)
