"""Where PRDP settles for one Gaussian step: tilted means, floors, overshoot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.objectives.prdp import prdp_loss
from mmrl.ops import gaussian

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/prdp.json").read_text())


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


Z = tensor([-math.sqrt(3), 0.0, 0.0, 0.0, 0.0, math.sqrt(3)])
"""Six draws with the first five moments of a standard normal."""


def gaussian_step(
    mean: float, drawn_at: float, law: dict[str, float], reward
) -> tuple[float, float]:
    """Loss and d loss / d mean of N(mean, s2), data of N(drawn_at, s2), reference N(m, s2)."""
    std = tensor([law["s2"]])[0].sqrt()
    x = (drawn_at + std * Z)[:, None]
    mu = tensor([mean])[0].requires_grad_(True)
    current = gaussian.log_prob(x, mu.expand_as(x), std)[:, None]
    ref = gaussian.log_prob(x, torch.full_like(x, law["m"]), std)[:, None]
    loss, _ = prdp_loss(
        current, current.detach(), ref, reward(x[:, 0]), beta=law["beta"], clip=None, pairs="all"
    )
    (slope,) = torch.autograd.grad(loss, mu)
    return loss.item(), slope.item()


def test_a_linear_reward_is_fitted_exactly_by_the_tilted_mean() -> None:
    law = GOLDEN["tilted_gaussian"][1]
    assert law["m"] + law["s2"] * law["a"] / law["beta"] == pytest.approx(law["tilted_mean"])
    loss, slope = gaussian_step(law["tilted_mean"], law["m"], law, lambda x: law["a"] * x)
    assert loss == pytest.approx(law["loss_floor"], abs=1e-20)
    assert slope == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("goal", [1.0, 4.0])
def test_a_curved_reward_settles_at_the_tilted_mean_above_a_floor(goal: float) -> None:
    """(m beta + g s2) / (beta + s2), loss s2^2 / beta^2, 6/5 of it with six draws."""
    law = GOLDEN["tilted_gaussian"][0] | {"g": goal}
    mean = (law["m"] * law["beta"] + goal * law["s2"]) / (law["beta"] + law["s2"])
    loss, slope = gaussian_step(mean, mean, law, lambda x: -((x - goal) ** 2) / 2)
    assert loss == pytest.approx(6 / 5 * law["loss_floor"], rel=1e-9)
    assert slope == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("s2", "beta"), [(1.0, 3.0), (0.5, 0.4)])
def test_a_full_fit_to_old_samples_overshoots_by_s2_over_beta(s2: float, beta: float) -> None:
    """Data of N(nu, s2) are fitted best by m - s2 (nu - g) / beta: s2 > beta swings apart."""
    law, goal = {"m": 0.5, "s2": s2, "beta": beta}, 2.0
    for drawn_at in (0.5, 1.7):
        best = 0.5 - s2 / beta * (drawn_at - goal)
        slopes = [
            gaussian_step(mean, drawn_at, law, lambda x: -((x - goal) ** 2) / 2)[1]
            for mean in (best - 0.1, best, best + 0.1)
        ]
        assert slopes[1] == pytest.approx(0, abs=1e-10)
        assert slopes[0] < 0 < slopes[2]
