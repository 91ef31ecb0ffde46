"""Reading `<think>..</think><answer>..</answer>` texts."""

from __future__ import annotations

import re
from functools import cache

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ONLY_ANSWER = re.compile(r"\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)


def answer_block(text: str) -> str | None:
    """The content of the one answer block, stripped; None where there is none or several."""
    found = ANSWER.findall(text)
    whole = text.count("<answer>") == text.count("</answer>") == 1
    return found[0].strip() if len(found) == 1 and whole else None


def well_formed(text: str, *, think: bool, tag: str = "think") -> bool:
    """Exactly the blocks asked for, each once and not empty, with only white space around.

    `tag` is the name of the think block.
    """
    pattern = _think_then_answer(tag) if think else ONLY_ANSWER
    found = pattern.fullmatch(text)
    expected = 1 if think else 0
    names = (f"<{tag}>", f"</{tag}>", "<answer>", "</answer>")
    once = [text.count(name) for name in names] == [expected, expected, 1, 1]
    return bool(found) and once and all(block.strip() for block in found.groupdict().values())


@cache
def _think_then_answer(tag: str) -> re.Pattern[str]:
    return re.compile(
        rf"\s*<{tag}>(?P<think>.*?)</{tag}>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL
    )
