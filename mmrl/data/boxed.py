r"""Reading `\boxed{...}` answers."""

from __future__ import annotations

import re

BOX = "\\boxed"
OPENING = re.compile(r"\\boxed\s*\{")


def count_boxes(text: str) -> int:
    r"""How often `\boxed` stands in the text, readable or not."""
    return text.count(BOX)


def boxes(text: str) -> list[str]:
    """The content of every box whose braces close, in order; a box inside another is its content.

    Braces nest, and an escaped brace does not count.
    """
    found, position = [], 0
    while match := OPENING.search(text, position):
        end = _closing(text, match.end())
        if end is None:
            position = match.end()
        else:
            found.append(text[match.end() : end].strip())
            position = end
    return found


def last_box(text: str) -> str | None:
    """The content of the last readable box, or None."""
    found = boxes(text)
    return found[-1] if found else None


def _closing(text: str, start: int) -> int | None:
    depth, position = 1, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return position
        position += 1
    return None
