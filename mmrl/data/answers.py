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


def well_formed(text: str, *, think: bool, tag: str = "think", answer_first: bool = False) -> bool:
    """Exactly the blocks asked for, each once and not empty, with only white space around.

    `tag` is the name of the think block, which comes first unless the answer does.
    """
    pattern = _think_and_answer(tag, answer_first) if think else ONLY_ANSWER
    found = pattern.fullmatch(text)
    expected = 1 if think else 0
    names = (f"<{tag}>", f"</{tag}>", "<answer>", "</answer>")
    once = [text.count(name) for name in names] == [expected, expected, 1, 1]
    return bool(found) and once and all(block.strip() for block in found.groupdict().values())


@cache
def _think_and_answer(tag: str, answer_first: bool) -> re.Pattern[str]:
    blocks = [rf"<{tag}>(?P<think>.*?)</{tag}>", r"<answer>(?P<answer>.*?)</answer>"]
    first, second = reversed(blocks) if answer_first else blocks
    return re.compile(rf"\s*{first}\s*{second}\s*", re.DOTALL)
