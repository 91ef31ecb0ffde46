"""How hard a penalty pulls beside the policy's own gradient."""

from __future__ import annotations

import pytest
import torch

from mmrl.objectives.clipped import clipped_surrogate
from mmrl.ops import gaussian
from mmrl.trust_region.penalty import anchor_kls, penalty
from mmrl.types import ActionKind, Actions, ActionStats


def test_the_released_weight_pulls_less_than_a_millionth_as_hard_as_the_policy() -> None:
    """|d KL| / |d loss| = coefficient * drift / std, here with a drift of a tenth of a std.

    1e-5 pulls 1e-6 times as hard, the default of 1e-2 a thousandth.
    """
    generator = torch.Generator().manual_seed(0)
    std, size = 0.2, 4096
    anchor = torch.zeros(1, 1, size, dtype=torch.float64)
    drift = 0.1 * std * torch.randn(anchor.shape, generator=generator, dtype=torch.float64)
    mean = (anchor + drift).requires_grad_()
    after = (
        mean + std * torch.randn(anchor.shape, generator=generator, dtype=torch.float64)
    ).detach()
    log_prob = gaussian.log_prob(after[0], mean[0], torch.tensor(std, dtype=torch.float64))[:, None]
    weights: dict[ActionKind, torch.Tensor] = {"denoise": torch.ones(1, 1, dtype=torch.float64)}
    scale = torch.full((1, 1), std, dtype=torch.float64)
    current: Actions = {"denoise": ActionStats(log_prob, mean, scale)}
    kept: Actions = {"denoise": ActionStats(log_prob.detach(), anchor, scale)}
    loss, _ = clipped_surrogate(
        log_prob,
        log_prob.detach(),
        torch.ones(1).double(),
        weights["denoise"],
        clip_low=1e-4,
        clip_high=1e-4,
    )
    [policy] = torch.autograd.grad(loss, mean, retain_graph=True)
    kls = anchor_kls(current, {"periodic": kept}, weights, estimator="k3")
    shares = {}
    for coefficient in (1e-5, 1e-2):
        total = penalty(kls, {"periodic/denoise": coefficient})
        [pull] = torch.autograd.grad(total, mean, retain_graph=True)
        shares[coefficient] = (pull.norm() / policy.norm()).item()
    assert shares[1e-5] == pytest.approx(1e-6, rel=0.05)
    assert shares[1e-2] == pytest.approx(1e-3, rel=0.05)
