"""Token log-probs and entropies: equal to the plain softmax, without its table."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrl.ops.categorical import (
    entropy,
    inverse_cdf,
    log_probs_from_logits,
    token_entropy,
    token_log_probs,
)


class LargestTensor(TorchDispatchMode):
    """Most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else (made,):
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.numel())
        return made


def layer(rows: int, width: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    given = {"generator": generator, "dtype": torch.float64, "requires_grad": True}
    return torch.randn((rows, width), **given), torch.randn((vocabulary, width), **given)


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


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunked_entropy_and_gradients_equal_the_plain_softmax(chunk: int) -> None:
    hidden, head = layer(7, 5, 11)
    log_p = torch.log_softmax(hidden @ head.T / 0.7, -1)
    plain = -(log_p.exp() * log_p).sum(-1)
    expected = torch.autograd.grad(plain.sum(), (hidden, head))
    found = token_entropy(hidden, head, temperature=0.7, chunk=chunk)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), (hidden, head)), expected)


def test_logits_and_hidden_states_say_the_same() -> None:
    hidden, head = layer(7, 5, 11)
    ids, logits = torch.arange(7), hidden @ head.T
    torch.testing.assert_close(
        log_probs_from_logits(logits, ids, temperature=0.7, chunk=2),
        token_log_probs(hidden, head, ids, temperature=0.7, chunk=3),
    )
    torch.testing.assert_close(
        entropy(logits.view(7, 1, 11), temperature=0.7, chunk=2)[:, 0],
        token_entropy(hidden, head, temperature=0.7),
    )


def test_forward_and_backward_never_hold_a_table_over_rows_and_vocabulary() -> None:
    """64 rows of 500 tokens are 32000 logits; 4 rows at a time make 2000, as has the head."""
    hidden, head = layer(64, 4, 500)
    with LargestTensor() as seen:
        token_log_probs(hidden, head, torch.arange(64), chunk=4).sum().backward()
        token_entropy(hidden, head, chunk=4).sum().backward()
    assert seen.elements == 4 * 500


def test_what_waits_for_the_backward_pass_is_the_input_and_no_logits() -> None:
    hidden, head = layer(64, 4, 500)
    kept: dict[int, int] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        kept[saved.data_ptr()] = saved.numel()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        token_log_probs(hidden, head, torch.arange(64), chunk=4)
    assert 0 < sum(kept.values()) <= hidden.numel() + head.numel() + 64


def test_half_precision_logits_are_summed_in_float32() -> None:
    """In bfloat16 the log of 4096 equal tokens would come out as 8.3125."""
    logits = torch.zeros((1, 4096), dtype=torch.bfloat16)
    found = log_probs_from_logits(logits, torch.tensor([7]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(-math.log(4096), rel=1e-6)
    assert entropy(logits).item() == pytest.approx(math.log(4096), rel=1e-6)


def test_a_low_temperature_sharpens() -> None:
    """Logits 0 and 1 at temperature 1/2 are the odds e^2."""
    logits = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = log_probs_from_logits(logits, torch.tensor([1]), temperature=0.5).exp()
    assert found.item() == pytest.approx(math.exp(2) / (1 + math.exp(2)), rel=1e-12)


def test_a_banned_token_adds_nothing_to_the_entropy_and_gets_no_gradient() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    found = entropy(logits)
    found.sum().backward()
    assert found.item() == pytest.approx(math.log(2), rel=1e-12)
    assert logits.grad is not None
    assert logits.grad.tolist() == [pytest.approx([0, 0, 0], abs=1e-15)]


def test_no_rows_at_all_are_no_log_probs() -> None:
    _, head = layer(1, 5, 11)
    assert token_log_probs(head[:0], head, torch.zeros(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    hidden, head = layer(2, 5, 11)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        token_log_probs(hidden, head, torch.zeros(2, dtype=torch.long), temperature=temperature)
