"""Reading `<think>..</think><answer>..</answer>` texts."""

from __future__ import annotations

import re
from functools import cache

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ONLY_ANSWER = re.compile(r"\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)


def answer_block(text: str) -> str | None:
    """The content of the one answer block, stripped; None where there is none or several."""
    if not text.count("<answer>") == text.count("</answer>") == 1:
        return None
    found = ANSWER.search(text)
    return found[1].strip() if found else None


def first_answer(text: str) -> str | None:
    """The content of the first answer block, stripped, whatever else there is; None without one."""
    _, opening, rest = text.partition("<answer>")
    content, closing, _ = rest.partition("</answer>")
    return content.strip() if opening and closing else None


def reference_answer(text: str | None) -> str:
    """The answer of a reference: the content of its one answer block, or all of it; stripped.

    Empty where there is nothing to compare with.
    """
    block = answer_block(text or "")
    return (text or "").strip() if block is None else block


def well_formed(text: str, *, think: bool, tag: str = "think", answer_first: bool = False) -> bool:
    """Exactly the blocks asked for, each once and not empty, with only white space around.

    `tag` is the name of the think block, which comes first unless the answer does.
    """
    expected = 1 if think else 0
    names = (f"<{tag}>", f"</{tag}>", "<answer>", "</answer>")
    if [text.count(name) for name in names] != [expected, expected, 1, 1]:
        return False
    found = (_think_and_answer(tag, answer_first) if think else ONLY_ANSWER).fullmatch(text)
    return bool(found) and all(block.strip() for block in found.groupdict().values())


@cache
def _think_and_answer(tag: str, answer_first: bool) -> re.Pattern[str]:
    blocks = [rf"<{tag}>(?P<think>.*?)</{tag}>", r"<answer>(?P<answer>.*?)</answer>"]
    first, second = reversed(blocks) if answer_first else blocks
    return re.compile(rf"\s*{first}\s*{second}\s*", re.DOTALL)
