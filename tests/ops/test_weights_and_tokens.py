"""Shares of decisions add to one mean; token log-probs equal the plain softmax."""

from __future__ import annotations

import pytest
import torch

from mmrl.ops.categorical import entropy, inverse_cdf, token_log_probs
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


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunked_log_probs_and_gradients_equal_the_plain_softmax(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((7, 5), generator=generator, requires_grad=True)
    head = torch.randn((11, 5), generator=generator, requires_grad=True)
    ids = torch.randint(11, (7,), generator=generator)
    plain = torch.log_softmax(hidden @ head.T / 0.7, -1).gather(1, ids[:, None])[:, 0]
    expected = torch.autograd.grad(plain.sum(), (hidden, head))
    found = token_log_probs(hidden, head, ids, temperature=0.7, chunk=chunk)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), (hidden, head)), expected)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.log(torch.tensor([0.5, 0.0, 0.2, 0.3]))
    uniform = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1] + 5e-5
    ids, log_probs = inverse_cdf(logits.expand(10_000, 4), uniform)
    share = torch.bincount(ids, minlength=4) / 10_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.0, 0.2, 0.3]), atol=2e-4, rtol=0)
    torch.testing.assert_close(log_probs.exp(), torch.tensor([0.5, 0.0, 0.2, 0.3])[ids])


def test_entropy_of_equal_logits_is_the_log_of_their_number() -> None:
    assert entropy(torch.zeros(8)).item() == pytest.approx(torch.log(torch.tensor(8.0)).item())
