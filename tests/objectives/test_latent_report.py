"""What is told of latents each step: by hand, cut in parts, and where there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mmrl.objectives.latent_report import latent_report
from mmrl.ops.latent_steps import at_slots, latent_stats, slots
from mmrl.ops.weights import per_decision
from mmrl.types import ActionStats

KAPPA = 3.0


@dataclass(frozen=True)
class Record:
    """Answers with their latents."""

    latent: Tensor
    hidden: Tensor
    thoughts: Tensor

    def rows(self, part: slice) -> Record:
        return Record(self.latent[part], self.hidden[part], self.thoughts[part])

    def decisions(self, part: slice) -> Record:
        return self


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def answers() -> tuple[Record, Tensor]:
    """Spans of 2 and 1 latents, one of 1, and an answer without any."""
    latent = torch.tensor([[0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    where, real = slots(latent)
    hidden = torch.zeros(3, 6, 2, dtype=torch.float64)
    hidden[0, 1], hidden[0, 2], hidden[0, 4] = tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    hidden[1, 2] = tensor([0.0, 4.0])
    at = at_slots(hidden, where)
    thoughts = torch.zeros_like(at)
    thoughts[..., 0] = 1.0
    return Record(latent, at, thoughts), per_decision(real.double())


def stats(record: Record, weights: Tensor, shift: Tensor | None = None) -> ActionStats:
    found = latent_stats(record.hidden, record.thoughts, weights != 0, KAPPA)
    if shift is None:
        return found
    return ActionStats(found.log_probs + shift, found.mean, found.scale)


def test_two_answers_by_hand() -> None:
    """Cosines 0.6, 1, 0 and 0; norms 5, 1, 2 and 4; three quarters of the weight on the first."""
    record, weights = answers()
    shift = torch.log(tensor([[2.0, 1.0, 0.5], [1.25, 9.0, 9.0], [9.0, 9.0, 9.0]]))
    found = latent_report(
        stats(record, weights, shift), stats(record, weights), weights, record, answers=3
    )
    assert found == pytest.approx(
        {
            "latent/cosine": (0.6 + 1 + 0 + 0) / 4,
            "latent/cosine_lowest": 0.0,
            "latent/ratio_lowest": 0.75 * 0.5 + 0.25 * 1.25,
            "latent/ratio_highest": 0.75 * 2 + 0.25 * 1.25,
            "latent/state_norm": (5 + 1 + 2 + 4) / 4,
            "latent/per_span": 0.75 * 3 / 2 + 0.25 * 1,
            "latent/spans": (2 + 1 + 0) / 3,
        },
        abs=1e-12,
    )


def test_the_lowest_cosine_is_that_of_one_misplaced_latent() -> None:
    """All latents at their states but one, which points away."""
    record, weights = answers()
    placed = torch.nn.functional.normalize(record.hidden, dim=-1)
    placed[0, 1] *= -1
    turned = Record(record.latent, record.hidden, placed)
    found = latent_report(
        stats(turned, weights), stats(turned, weights), weights, turned, answers=3
    )
    assert found["latent/cosine"] == pytest.approx((1 - 1 + 1 + 1) / 4)
    assert found["latent/cosine_lowest"] == pytest.approx(-0.75 + 0.25)
    assert found["latent/ratio_lowest"] == found["latent/ratio_highest"] == 1


def test_parts_of_a_batch_add_up() -> None:
    record, weights = answers()
    current, behavior = stats(record, weights, weights.sin()), stats(record, weights)
    whole = latent_report(current, behavior, weights, record, answers=3)
    cuts = (slice(0, 1), slice(1, 3))
    parts = [
        latent_report(current.rows(p), behavior.rows(p), weights[p], record.rows(p), answers=3)
        for p in cuts
    ]
    for name, value in whole.items():
        assert sum(part[name] for part in parts) == pytest.approx(value, abs=1e-12)


def test_a_runaway_latent_and_answers_without_any_give_finite_numbers() -> None:
    record, weights = answers()
    far = latent_report(
        stats(record, weights, tensor([[1e4, -1e4, 0.0]]).expand(3, 3)),
        stats(record, weights),
        weights,
        record,
        answers=3,
    )
    assert all(math.isfinite(value) for value in far.values())
    alone = slice(2, 3)
    none = latent_report(
        stats(record, weights).rows(alone),
        stats(record, weights).rows(alone),
        weights[alone],
        record.rows(alone),
        answers=1,
    )
    assert set(none.values()) == {0.0}


def test_the_releases_scores_have_no_cosine() -> None:
    record, weights = answers()
    plain = stats(record, weights)
    assert plain.mean is not None
    scores = ActionStats(plain.log_probs, plain.mean[..., :1], plain.scale)
    found = latent_report(scores, scores, weights, record, answers=3)
    assert "latent/cosine" not in found
    assert found["latent/spans"] == 1
