r"""Reading `\boxed{...}` answers."""

from __future__ import annotations

import re
from dataclasses import dataclass

BOX = "\\boxed"
OPENING = re.compile(r"\\boxed\s*+\{")
BRACE = re.compile(r"(?P<box>\\boxed\s*+\{)|\\(?!\\boxed).|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Boxed:
    """One box: text[start:end] is all of it, `content` what stands between its braces."""

    start: int
    end: int
    content: str


def count_boxes(text: str) -> int:
    r"""How often `\boxed` stands in the text, readable or not."""
    return text.count(BOX)


def find_boxes(text: str) -> list[Boxed]:
    """Every box whose braces close, in order; a box inside another is its content.

    Braces nest, and an escaped brace does not count.
    """
    found: list[Boxed] = []
    opened: list[re.Match[str]] = []
    for brace in BRACE.finditer(text):
        if brace["box"] or brace[0] == "{":
            opened.append(brace)
        elif brace[0] == "}" and opened and (opening := opened.pop())["box"]:
            while found and found[-1].start > opening.start():
                found.pop()
            content = text[opening.end() : brace.start()].strip()
            found.append(Boxed(opening.start(), brace.end(), content))
    return found


def boxes(text: str) -> list[str]:
    """The contents of `find_boxes`."""
    return [box.content for box in find_boxes(text)]


def last_box(text: str) -> str | None:
    """The content of the last readable box, or None."""
    found = find_boxes(text)
    return found[-1].content if found else None
