"""Noise levels: references, hand numbers, limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.sigmas import resolution_shift, shifted_sigmas

AUX = json.loads((Path(__file__).parent.parent / "golden/sage_aux.json").read_text())


@pytest.mark.parametrize("case", AUX["schedules"], ids=lambda case: str(case["shift"]))
def test_schedules_equal_the_reference(case: dict) -> None:
    found = shifted_sigmas(case["num_steps"], case["shift"])
    expected = torch.tensor(case["sigmas"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_levels_of_20_steps_with_shift_5_by_hand() -> None:
    """1 - sigma_1 = 1 / (k N - k + 1), sigma_{N-1} = k / (N + k - 1)."""
    found = shifted_sigmas(20, 5.0).tolist()
    assert (found[0], found[-1]) == (1, 0)
    assert 1 - found[1] == pytest.approx(1 / 96, rel=1e-12)
    assert found[-2] == pytest.approx(5 / 24, rel=1e-12)
    assert found == sorted(found, reverse=True)


def test_shift_1_is_an_even_grid() -> None:
    assert shifted_sigmas(4, 1.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_a_shift_of_a_shift_is_the_product_of_shifts() -> None:
    once = shifted_sigmas(8, 3.0)
    torch.testing.assert_close(2 * once / (1 + once), shifted_sigmas(8, 6.0))


def test_resolution_shift_has_the_two_published_ends() -> None:
    """mu 0.5 at 256 tokens, 1.15 at 4096; FLUX's sigma(u) is the static shift exp(mu)."""
    assert resolution_shift(256) == pytest.approx(math.exp(0.5))
    assert resolution_shift(4096) == pytest.approx(math.exp(1.15))
    k, u = resolution_shift(1024), 0.25
    assert shifted_sigmas(4, k)[3].item() == pytest.approx(k / (k + 1 / u - 1), rel=1e-12)


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 5.0), (20, 0.0), (20, -1.0)])
def test_impossible_schedules_are_refused(num_steps: int, shift: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        shifted_sigmas(num_steps, shift)
