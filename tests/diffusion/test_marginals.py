"""Whole chains on data whose velocity is known: where each sampler ends, exactly. float64."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind, Variant, transition

ROWS = json.loads((Path(__file__).parent.parent / "golden/sage_aux.json").read_text())[
    "gaussian_marginals"
]["rows"]
KINDS: dict[str, TransitionKind] = {
    "ode": "ode",
    "flow": "flow",
    "dance": "dance",
    "sage": "sage",
    "cps": "cps",
    "bridge_flow": "bridge",
}


def final_law(
    kind: TransitionKind,
    *,
    num_steps: int,
    shift: float = 5.0,
    eta: float = 0.5,
    data_std: float,
    last_ode: bool,
    variant: Variant = "fixed",
) -> tuple[float, float]:
    """Mean and variance of the chain's end for data N(1, data_std^2), by linear propagation.

    E[v | x] = -1 + slope (x - (1 - sigma)), so every transition is x' = gain x + offset + noise.
    """
    sigmas = shifted_sigmas(num_steps, shift).tolist()
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mean, variance = 0.0, 1.0
    for high, low in pairwise(sigmas):
        total = high**2 + (1 - high) ** 2 * data_std**2
        slope = (high - (1 - high) * data_std**2) / total
        v = -1 + slope * (x - (1 - high))
        chosen: TransitionKind = "ode" if last_ode and low == 0 else kind
        found = transition(chosen, x, v, high, low, eta=eta, sigma_1=sigmas[1], variant=variant)
        offset, end = found.mean.flatten().tolist()
        mean = offset + (end - offset) * mean
        variance = (end - offset) ** 2 * variance + found.std.item() ** 2
    return mean, variance


KNOWN = [row for row in ROWS if row["kind"] in KINDS]


@pytest.mark.parametrize(
    "row", KNOWN, ids=lambda row: f"{row['kind']}-{row['num_steps']}-{row['data_std']}"
)
def test_gaussian_marginals_equal_the_analytic_reference(row: dict) -> None:
    given = {key: row[key] for key in ("num_steps", "shift", "eta", "data_std")}
    for last_ode, expected in ((False, "final_var"), (True, "final_var_last_step_ode")):
        found = final_law(KINDS[row["kind"]], **given, last_ode=last_ode, variant="released")
        assert found == pytest.approx((row["final_mean"], row[expected]), abs=1e-9)


@pytest.mark.parametrize("kind", ["ode", "flow", "dance", "sage", "bridge"])
def test_many_steps_reach_the_law_of_the_data(kind: TransitionKind) -> None:
    mean, variance = final_law(kind, num_steps=1000, data_std=0.25, last_ode=True)
    assert mean == pytest.approx(1, abs=1e-12)
    assert variance**0.5 == pytest.approx(0.25, rel=0.02)


def test_cps_does_not_reach_the_law_of_the_data_however_many_steps() -> None:
    _, variance = final_law("cps", num_steps=4000, data_std=1.0, last_ode=False)
    assert variance**0.5 == pytest.approx(0.922, abs=2e-3)


@pytest.mark.parametrize(
    ("kind", "noise_left"),
    [("sage", 0.08127), ("flow", 0.12295), ("dance", 0.27388), ("cps", 0), ("bridge", 0)],
)
def test_a_stochastic_last_step_leaves_noise_on_a_video_that_is_known(
    kind: TransitionKind, noise_left: float
) -> None:
    """All data at one point, 20 steps: a deterministic last step lands on it, sage's misses."""
    _, variance = final_law(kind, num_steps=20, data_std=0.0, last_ode=False)
    assert variance**0.5 == pytest.approx(noise_left, abs=1e-5)
    mean, variance = final_law(kind, num_steps=20, data_std=0.0, last_ode=True)
    assert (mean, variance) == pytest.approx((1, 0), abs=1e-12)
