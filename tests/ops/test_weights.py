"""Shares of decisions add to one mean, however a batch is cut."""

from __future__ import annotations

import torch

from mmrl.ops.weights import per_decision, per_sequence, per_timestep

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_every_decision_or_every_sequence_counts_alike() -> None:
    assert per_decision(MASK).tolist() == (MASK / 4).tolist()
    torch.testing.assert_close(
        per_sequence(MASK), torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0] * 3]) / 9
    )


def test_shares_of_micro_batches_with_the_global_total_are_the_whole_batch() -> None:
    parts = torch.cat([per_decision(MASK[:1], total=4), per_decision(MASK[1:], total=4)])
    torch.testing.assert_close(parts, per_decision(MASK))
    parts = torch.cat([per_sequence(MASK[:1], total=3), per_sequence(MASK[1:], total=3)])
    torch.testing.assert_close(parts, per_sequence(MASK))


def test_timestep_scales_multiply_shares() -> None:
    scales = torch.tensor([1.0, 10.0, 100.0])
    assert per_timestep(MASK, scales).tolist() == (MASK / 4 * scales).tolist()


def test_a_row_without_a_decision_has_no_share_and_every_other_row_one_third() -> None:
    torch.testing.assert_close(per_sequence(MASK).sum(1), torch.tensor([1 / 3, 1 / 3, 0]))


def test_no_decision_at_all_gives_zeros_and_not_nan() -> None:
    empty = torch.zeros(2, 3)
    for shares in (per_decision(empty), per_sequence(empty), per_timestep(empty, torch.ones(3))):
        assert shares.tolist() == empty.tolist()
