"""Action-aware weights of a GUI cold start (GUI-Libra, arXiv:2602.22190, section on ASFT)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmrl.config import UserError
from mmrl.train.sft import Example, Weigh
from mmrl.types import Prompt

Segment = Literal["reason", "action", "ground"]
Form = Literal["reasoning", "direct"]
BLOCK = re.compile(r"<answer>(?P<action>.*?)</answer>", re.DOTALL)
PLACE = re.compile(r'"point_2d"\s*:\s*(?:"[^"]*"|\[(?P<ground>[^\]]*)\])')


def action_aware(
    *, alpha_action: float, alpha_ground: float, missing: Literal["error", "plain"] = "error"
) -> Weigh:
    """Weight of each token: 1 for reasoning, alpha_action in the answer, alpha_ground for x and y.

    A coordinate weighs alpha_ground, not alpha_action alpha_ground, and only the answer is
    searched (the release multiplies both, up to the end, and searches the prompt first).
    `missing`: what an answer without an answer block or without its point_2d is. UserError for
    weights that are negative or not finite.
    """
    weights: dict[Segment, float] = {
        "reason": 1.0,
        "action": alpha_action,
        "ground": alpha_ground,
    }
    for name, weight in (("alpha_action", alpha_action), ("alpha_ground", alpha_ground)):
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{name} must be finite and >= 0, got {weight}")

    def weigh(answer: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
        return [weights[kind] for kind in segments(answer, offsets, missing=missing)]

    return weigh


def segments(
    answer: str, offsets: Sequence[tuple[int, int]], *, missing: Literal["error", "plain"]
) -> list[Segment]:
    """What each token belongs to, from its first and past its last character.

    A token that touches two segments counts to the more special one; tags are reasoning.
    """
    block = BLOCK.search(answer)
    if block is None:
        return _without(answer, offsets, "an answer block", missing)
    place = PLACE.search(block["action"])
    if place is None:
        return _without(answer, offsets, "the key point_2d", missing)
    spans: list[tuple[Segment, int, int]] = [("action", *block.span("action"))]
    if place["ground"] is not None:
        first, last = place.span("ground")
        spans.append(("ground", first + block.start("action"), last + block.start("action")))
    return [_segment(start, end, spans) for start, end in offsets]


def written_forms(
    prompt: Prompt,
    action: Mapping[str, Any],
    reasoning: str | None,
    *,
    forms: Sequence[Form] = ("reasoning", "direct"),
    tag: Literal["think", "thinking"] = "think",
) -> list[Example]:
    """One step with its reasoning and as the action alone: GUI-Libra's mix of both.

    UserError where neither can be written.
    """
    answer = f"<answer>\n{json.dumps(action, ensure_ascii=False)}\n</answer>"
    texts = {"direct": answer}
    if reasoning:
        texts["reasoning"] = f"<{tag}>{reasoning}</{tag}>\n{answer}"
    found = [Example(prompt, texts[form]) for form in forms if form in texts]
    if not found:
        raise UserError(
            f"the step {prompt.text[:40]!r} has no form to learn: no reasoning is written, and "
            f"the forms asked for are {', '.join(forms) or 'none'}"
        )
    return found


def _segment(start: int, end: int, spans: Sequence[tuple[Segment, int, int]]) -> Segment:
    """Spans stand from the less to the more special one."""
    found: Segment = "reason"
    for kind, first, last in spans:
        if start < last and end > first:
            found = kind
    return found


def _without(
    answer: str, offsets: Sequence[tuple[int, int]], what: str, missing: Literal["error", "plain"]
) -> list[Segment]:
    if missing == "error":
        raise UserError(
            f"{answer[:40]!r} has not {what}: action-aware weights would change nothing; "
            'write one, or choose missing="plain"'
        )
    return ["reason"] * len(offsets)
