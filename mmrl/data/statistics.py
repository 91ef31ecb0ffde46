"""Counts over the prompts of a file: kinds, answers, sizes, lengths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmrl.types import Prompt

KINDS = ("modality", "question_type", "label", "action_type")
"""Metadata whose values are counted."""
SHOWN = 20
"""Most frequent values that a summary lists."""


@dataclass
class Statistics:
    """Counters only: their memory does not grow with the number of prompts."""

    prompts: int = 0
    pictures_per_prompt: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Width and height of the distinct pictures."""
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    characters: Counter[int] = field(default_factory=Counter)

    def add(self, prompt: Prompt) -> None:
        """One more prompt."""
        self.prompts += 1
        self.pictures_per_prompt[len(prompt.images)] += 1
        self.characters[len(prompt.text)] += 1
        if prompt.answer is None:
            self.unanswered += 1
        else:
            self.answers[prompt.answer] += 1
        for kind in KINDS:
            if kind in prompt.metadata:
                self.kinds.setdefault(kind, Counter())[str(prompt.metadata[kind])] += 1

    def summary(self) -> dict[str, Any]:
        """As plain numbers; `majority` is the share of the most frequent answer."""
        answered = sum(self.answers.values())
        most = max(self.answers.values(), default=0)
        return {
            "prompts": self.prompts,
            "pictures": sum(self.sizes.values()),
            "pictures per prompt": {str(k): v for k, v in sorted(self.pictures_per_prompt.items())},
            "width": quantiles(_marginal(self.sizes, 0)),
            "height": quantiles(_marginal(self.sizes, 1)),
            "text characters": quantiles(self.characters),
            "answers": dict(self.answers.most_common(SHOWN)),
            "different answers": len(self.answers),
            "majority": most / answered if answered else None,
            "without an answer": self.unanswered,
            **{kind: dict(found.most_common(SHOWN)) for kind, found in self.kinds.items()},
        }


def quantiles(counts: Counter[int]) -> dict[str, int]:
    """Least, median and greatest of counted values; the lower median of an even number."""
    total, passed = sum(counts.values()), 0
    for value in sorted(counts):
        passed += counts[value]
        if 2 * passed >= total:
            return {"least": min(counts), "median": value, "greatest": max(counts)}
    return {}


def _marginal(sizes: Counter[tuple[int, int]], axis: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for size, count in sizes.items():
        found[size[axis]] += count
    return found
