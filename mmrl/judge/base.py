"""What a judge is asked and what it says; the same question is put to it once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

from PIL import Image

from mmrl.data.judge_scores import Reading
from mmrl.reward.base import Unit

logger = logging.getLogger(__name__)

CONTROL_TOKEN = re.compile(
    r"<\|[^|<>\s]*\|>|<(?:image|video|end_of_utterance|fake_token_around_image|/?img|IMG_CONTEXT)>"
)
MEMORY = 100_000
"""Replies kept for questions that come again; the oldest leave first."""
TOP_TOKENS = 20
"""How many of the likeliest first tokens a reply tells, the most that OpenAI's interface gives."""


@dataclass(frozen=True)
class Question:
    """One user turn: pictures first, then text."""

    text: str
    images: tuple[Path | Image.Image, ...] = ()
    first_token: bool = False
    """Whether the log-probs of the reply's first token are wanted."""

    @property
    def digest(self) -> str:
        """Equal for equal text and pictures; a picture in a file counts by its path."""
        found = hashlib.sha256(self.text.encode())
        for image in self.images:
            found.update(b"\0")
            if isinstance(image, Path):
                found.update(str(image.resolve()).encode())
            else:
                found.update(f"{image.mode}{image.size}".encode() + image.tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Reply:
    """What the judge wrote."""

    text: str
    first_token: Mapping[str, float] = field(default_factory=dict)
    """Log-probs of its likeliest first tokens, where they were asked for."""


@runtime_checkable
class Judge(Protocol):
    """A vision-language model that answers questions, greedily."""

    @property
    def unit(self) -> Unit:
        """Whether it is asked one question at a time, many under way at once, or in batches."""
        ...

    @property
    def usual_faults(self) -> dict[str, Any]:
        """The fault policy that fits it."""
        ...

    async def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply a question; an exception is no reply."""
        ...


class Memory:
    """Replies by question: equal answers, in a group or in later steps, are judged once."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, judge: Judge, questions: Sequence[Question]) -> list[Reply]:
        """The judge's replies; a question that is under way is waited for."""
        new = {question.digest: question for question in questions}
        async with AsyncExitStack() as held:
            for digest in sorted(new):
                lock = self.under_way.setdefault(digest, asyncio.Lock())
                await held.enter_async_context(lock)
            missing = {digest: q for digest, q in new.items() if digest not in self.replies}
            fresh = await judge.ask(list(missing.values())) if missing else []
            self.replies |= dict(zip(missing, fresh, strict=True))
            found = [self.replies[question.digest] for question in questions]
        for digest in list(self.replies)[: max(0, len(self.replies) - MEMORY)]:
            del self.replies[digest]
        return found


def score_of(reading: Reading, *, name: str) -> float:
    """The score; NaN where the judge's words hold none, and its words go to the log."""
    if reading.problem:
        logger.warning("%s: %s in the judge's reply %r", name, reading.problem, reading.text)
    return reading.score


def without_control_tokens(text: str) -> str:
    """The text without tokens by which an answer could end the judge's turn or show it pictures."""
    before = None
    while before != text:
        before, text = text, CONTROL_TOKEN.sub("", text)
    return text


def fill(template: str, **values: str) -> str:
    """The template with each `{name}` replaced once: names inside the values stay as they are."""
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return pattern.sub(lambda match: without_control_tokens(values[match[0][1:-1]]), template)
