"""Options that a question lists: "Which? A) CT, B) MRI"."""

from __future__ import annotations

import re
import string

LABEL = re.compile(r"(?<![A-Za-z])\(?([A-Z])[).:]\s*(?=\S)")
LETTERS = re.compile(r"[A-Z](?:[,;\s]*[A-Z])*")


def options(text: str) -> dict[str, str]:
    """Letter -> text of the options that run A, B, C ... in order; empty for fewer than two."""
    run: list[re.Match[str]] = []
    for label in LABEL.finditer(text):
        if len(run) < 26 and label[1] == string.ascii_uppercase[len(run)]:
            run.append(label)
    if len(run) < 2:
        return {}
    ends = [label.start() for label in run[1:]] + [len(text)]
    return {
        label[1]: text[label.end() : end].strip(" \n\t,;")
        for label, end in zip(run, ends, strict=True)
    }


def named_letters(answer: str) -> str:
    """The letters of "B", "A, C" or "(B) text" in order, each once; empty where there are none."""
    stripped = answer.strip()
    if LETTERS.fullmatch(stripped):
        return "".join(sorted(set(re.findall("[A-Z]", stripped))))
    label = LABEL.match(stripped)
    return label[1] if label else ""


def is_option(answer: str, listed: dict[str, str]) -> bool:
    """Whether the answer is letters of the list, a letter with its text, or the text alone."""
    stripped = answer.strip()
    if LETTERS.fullmatch(stripped):
        letters = re.findall("[A-Z]", stripped)
        return set(letters) <= set(listed) and len(set(letters)) == len(letters)
    label = LABEL.match(stripped)
    if label and label[1] in listed:
        stripped = stripped[label.end() :]
        return stripped.casefold() == listed[label[1]].casefold()
    return stripped.casefold() in {text.casefold() for text in listed.values()}
