"""Reading `<think>..</think><answer>..</answer>` texts."""

from __future__ import annotations

import re

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
THINK_THEN_ANSWER = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL
)
ONLY_ANSWER = re.compile(r"\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def answer_block(text: str) -> str | None:
    """The content of the one answer block, stripped; None where there is none or several."""
    found = ANSWER.findall(text)
    whole = text.count("<answer>") == text.count("</answer>") == 1
    return found[0].strip() if len(found) == 1 and whole else None


def well_formed(text: str, *, think: bool) -> bool:
    """Exactly the blocks asked for, each once and not empty, with only white space around."""
    pattern = THINK_THEN_ANSWER if think else ONLY_ANSWER
    found = pattern.fullmatch(text)
    expected = 1 if think else 0
    counts = [text.count(tag) for tag in TAGS]
    once = counts == [expected, expected, 1, 1]
    return bool(found) and once and all(block.strip() for block in found.groupdict().values())
