"""Gap and truncated ratio between a sampler's log-probs and a trainer's."""

from __future__ import annotations

import math

import pytest
import torch

from mmrl.ops.parity import gap, truncated_ratio

ALL = torch.ones((1, 3), dtype=torch.bool)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_gap_is_measured_on_live_tokens_alone() -> None:
    live = torch.tensor([[True, True, False]])
    found = gap(row(-1.0, -2.0, -9.0), row(-1.25, -1.0, 9.0), live)
    assert (found.mean, found.largest) == (0.625, 1.0)


def test_no_live_token_has_no_gap_and_a_nan_shows() -> None:
    assert gap(row(-1.0), row(-2.0), torch.tensor([[False]])).largest == 0.0
    assert math.isnan(gap(row(math.nan, 0, 0), row(0, 0, 0), ALL).largest)


def test_equal_log_probs_weigh_exactly_one() -> None:
    log_probs = row(-0.1, -3.0, -700.0)
    assert truncated_ratio(log_probs, log_probs, ALL, cap=2.0).tolist() == [[1.0, 1.0, 1.0]]


def test_a_ratio_is_cut_above_and_not_below() -> None:
    """Ratios 1/4, 3/2 and 4 with cap 2."""
    apart = row(math.log(0.25), math.log(1.5), math.log(4.0))
    found = truncated_ratio(apart, row(0, 0, 0), ALL, cap=2.0)
    torch.testing.assert_close(found, row(0.25, 1.5, 2.0))


def test_a_token_that_is_not_live_weighs_one_whatever_it_holds() -> None:
    live = torch.tensor([[True, False, False]])
    found = truncated_ratio(row(0, math.nan, 99.0), row(0, 0, 0), live, cap=2.0)
    assert found.tolist() == [[1.0, 1.0, 1.0]]


def test_weighted_tokens_of_the_sampler_have_the_trainers_expectation() -> None:
    """sum q min(p / q, C) f = sum p f where no ratio is cut, for any f."""
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn((2, 50), generator=generator, dtype=torch.float64).log_softmax(-1)
    f = torch.randn(50, generator=generator, dtype=torch.float64)
    live = torch.ones((1, 50), dtype=torch.bool)
    weights = truncated_ratio(p[None], q[None], live, cap=1e9)[0]
    torch.testing.assert_close((q.exp() * weights * f).sum(), (p.exp() * f).sum())
    cut = truncated_ratio(p[None], q[None], live, cap=2.0)[0]
    assert cut.max() == 2.0
    assert (q.exp() * cut).sum() < 1.0


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="cap must be >= 1"):
        truncated_ratio(row(0, 0, 0), row(0, 0, 0), ALL, cap=0.5)
