"""Densities of one denoising step against reference numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.ops import gaussian

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())
CASES = GOLDEN["gaussian_logp"]


def row(values: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([values], dtype=dtype)


@pytest.mark.parametrize("case", CASES)
def test_log_prob_and_log_ratio_equal_the_reference(case: dict) -> None:
    x, mean, ref = (row(case[name]) for name in ("x", "mean", "mean_ref"))
    std = torch.tensor(case["std"], dtype=torch.float64)
    assert gaussian.log_prob(x, mean, std).item() == pytest.approx(case["logp_mean"], rel=1e-12)
    found = gaussian.log_ratio(x, mean, ref, std)
    assert found.item() == pytest.approx(case["logratio_mean"], rel=1e-9)
    assert gaussian.log_ratio(x, ref, mean, std).item() == -found.item()


def test_log_ratio_of_close_means_keeps_the_digits_a_difference_of_log_probs_loses() -> None:
    """Means 1e-6 apart, x - mean = 0.5, std 0.1: 1e-6 * (1 - 1e-6) / 0.02, near 5e-5."""
    std = torch.tensor(0.1)
    x, mean, other = (row([value], torch.float32) for value in (0.5, 1e-6, 0.0))
    found = gaussian.log_ratio(x, mean, other, std).item()
    assert found == pytest.approx(1e-6 * (1 - 1e-6) / 0.02, rel=1e-6)
    lost = (gaussian.log_prob(x, mean, std) - gaussian.log_prob(x, other, std)).item()
    assert abs(lost - found) > 1e-3 * found


def test_a_step_without_noise_has_no_log_ratio() -> None:
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian.log_ratio(row([0.0]), row([0.0]), row([1.0]), torch.tensor(0.0))
