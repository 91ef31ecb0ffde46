"""What right and wrong answers say beyond their mean: baselines, pass@k, stated confidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from mmrl.data.answers import answer_block, reference_answer
from mmrl.data.options import named_letters
from mmrl.evaluate.calibration import (
    adaptive_calibration_error,
    brier,
    expected_calibration_error,
    max_calibration_error,
    negative_log_likelihood,
)
from mmrl.evaluate.metrics import bootstrap_ci, matthews_correlation, pass_at_k
from mmrl.evaluate.row import CORRECT, Metric, Row

MOST_CLASSES = 20
"""Different answers up to which a prompt set is a classification, with a majority to beat."""
CALIBRATION = {
    "calibration/ece": expected_calibration_error,
    "calibration/adaptive_ece": adaptive_calibration_error,
    "calibration/mce": max_calibration_error,
    "calibration/brier": brier,
    "calibration/nll": negative_log_likelihood,
}


def pass_at(name: str, where: str, rows: Sequence[Row], level: float) -> list[Metric]:
    """pass@k for k = 1, 2, 4 ... where every prompt has several scores of 0 or 1."""
    tasks: dict[int, list[float]] = {}
    for row in rows:
        score = row.scores.get(name)
        if score is not None:
            tasks.setdefault(row.group, []).append(score)
    if not tasks or {x for task in tasks.values() for x in task} - {0.0, 1.0}:
        return []
    smallest = min(map(len, tasks.values()))
    found = []
    for k in (k for k in (1, 2, 4, 8, 16, 32, 64) if smallest > 1 and k <= smallest):
        values = [pass_at_k(len(task), int(sum(task)), k) for task in tasks.values()]
        estimate = bootstrap_ci(values, level=level)
        found.append(Metric(f"{name}/pass@{k}", where, *estimate, len(values), 0))
    return found


def baselines(name: str, where: str, rows: Sequence[Row]) -> list[Metric]:
    """`/majority`, `/balanced` and `/mcc` of right and wrong answers to questions with few answers.

    Majority: the share of the commonest answer, which a model that sees nothing can reach.
    Balanced: the mean over answers of the share that is right among the questions with that
    answer. All are left out where answers are all the same, or as many as the questions are open.
    """
    known = [row for row in rows if row.answer is not None and row.scores.get(name) is not None]
    classes = Counter(row.answer for row in known)
    closed = 2 <= len(classes) <= MOST_CLASSES and 2 * len(classes) <= len(known)
    if name not in CORRECT or not closed:
        return []
    recalls = [
        math.fsum(row.score(name) for row in known if row.answer == answer) / count
        for answer, count in classes.items()
    ]
    values = {
        "majority": max(classes.values()) / len(known),
        "balanced": math.fsum(recalls) / len(recalls),
    }
    left = len(rows) - len(known)
    return [
        Metric(f"{name}/{what}", where, value, math.nan, math.nan, len(known), left)
        for what, value in values.items()
    ] + _matthews(name, where, rows, known)


def _matthews(name: str, where: str, rows: Sequence[Row], known: Sequence[Row]) -> list[Metric]:
    """Matthews correlation of reference answers and what the written ones say."""
    told = [row for row in known if row.text is not None]
    if not told:
        return []
    truth, said = [row.answer for row in told], said_answers(name, told)
    value = matthews_correlation(truth, said)
    note = "" if math.isfinite(value) else "undefined: one answer alone is right, or was given"
    missing = len(rows) - len(told)
    return [Metric(f"{name}/mcc", where, value, math.nan, math.nan, len(told), missing, note)]


def said_answers(name: str, rows: Sequence[Row]) -> list[str | None]:
    """Which of the reference answers each row gives; None: none of them, or one cannot read it.

    A right answer gives its reference. A wrong one gives the reference that stands in its answer
    block (letters for `multiple_choice`), unless that is its own in a form that does not count.
    """

    def key(text: str | None) -> str:
        plain = reference_answer(text)
        return named_letters(plain) if name == "multiple_choice" else plain.casefold()

    references = {key(row.answer): row.answer for row in rows} | {"": None}
    said = [references.get(key(answer_block(row.text or ""))) for row in rows]
    return [
        row.answer if row.score(name) == 1 else found if found != row.answer else None
        for row, found in zip(rows, said, strict=True)
    ]


def calibration(where: str, rows: Sequence[Row]) -> list[Metric]:
    """ECE of equal width and of equal count, its maximum, Brier, NLL of stated confidences."""
    stated, right = confidences(rows)
    missing = len(rows) - len(stated)
    return [
        Metric(name, where, measure(stated, right), math.nan, math.nan, len(stated), missing)
        for name, measure in (CALIBRATION.items() if stated else ())
    ]


def confidences(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Stated confidences and whether the answers were right, of the rows that have both."""
    pairs = [(row.confidence, _right(row.scores)) for row in rows]
    known = [(p, hit) for p, hit in pairs if p is not None and hit is not None]
    return [p for p, _ in known], [hit for _, hit in known]


def _right(scores: Mapping[str, float | None]) -> float | None:
    return next((scores[name] for name in CORRECT if name in scores), None)
