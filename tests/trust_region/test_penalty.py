"""How hard a penalty pulls beside the policy's own gradient."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.ops import gaussian
from mmrl.ops.weights import per_sequence
from mmrl.trust_region.penalty import anchor_kls, penalty
from mmrl.types import ActionKind, Actions, ActionStats

OBJECTIVES = json.loads((Path(__file__).parent.parent / "golden/objectives.json").read_text())


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", ["grpo_k2_in_loss", "grpo_k3_in_loss", "grpo_k3_ratio_weighted"])
def test_loss_and_gradient_with_a_kl_equal_the_reference(name: str) -> None:
    given, hyper, expected = (OBJECTIVES[name][key] for key in ("inputs", "hyper", "expected"))
    new = tensor(given["logp_new"]).requires_grad_()
    current: Actions = {"token": ActionStats(new)}
    behavior: Actions = {"token": ActionStats(tensor(given["logp_old"]))}
    anchor: Actions = {"token": ActionStats(tensor(given["logp_ref"]))}
    weights = per_sequence(tensor(given["mask"]))
    clip = Clip(hyper["eps_low"], hyper["eps_high"])
    loss, _ = surrogate_loss(
        clip, new, behavior["token"].log_probs, tensor(given["advantages"]), weights
    )
    weighted = hyper["kl"].startswith("rho")
    kls = anchor_kls(
        current,
        {"fixed": anchor},
        {"token": weights},
        estimator=hyper["kl"].removeprefix("rho*"),
        behavior=behavior if weighted else None,
    )
    total = loss + penalty(kls, {"fixed/token": hyper["beta"]})
    total.backward()
    assert total.item() == pytest.approx(expected["loss"], abs=1e-12)
    torch.testing.assert_close(new.grad, tensor(expected["grad_logp_new"]), rtol=0, atol=1e-12)


def test_weighted_by_the_ratio_the_gradient_is_that_of_the_kl_whoever_drew_the_tokens() -> None:
    """Enumerated over four tokens drawn by another policy: grad KL(policy || anchor), exactly."""
    case = OBJECTIVES["kl_expected_gradients"]
    theta = tensor(case["inputs"]["theta"]).requires_grad_()
    old, anchor = (
        tensor(case["inputs"][name]).log_softmax(0) for name in ("logits_old", "logits_ref")
    )
    kls = anchor_kls(
        {"token": ActionStats(theta.log_softmax(0)[:, None])},
        {"fixed": {"token": ActionStats(anchor[:, None])}},
        {"token": old.exp()[:, None]},
        estimator="k3",
        behavior={"token": ActionStats(old[:, None])},
    )
    kls["fixed/token"].backward()
    expected = tensor(case["expected"]["grad_KL_new_ref"])
    torch.testing.assert_close(theta.grad, expected, rtol=1e-10, atol=1e-14)


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
    loss, _ = surrogate_loss(
        Clip(0.0001, 0.0001),
        log_prob,
        log_prob.detach(),
        torch.ones(1).double(),
        weights["denoise"],
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


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), -700.0])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_token_without_weight_has_no_gradient_whatever_it_holds(estimator, poison: float) -> None:
    log_probs = torch.tensor([[-1.0, poison]], requires_grad=True)
    current: Actions = {"token": ActionStats(log_probs)}
    anchor: Actions = {"token": ActionStats(torch.tensor([[-2.0, -1.0]]))}
    weights: dict[ActionKind, torch.Tensor] = {"token": torch.tensor([[1.0, 0.0]])}
    kls = anchor_kls(current, {"fixed": anchor}, weights, estimator=estimator)
    penalty(kls, {"fixed/token": 1.0}).backward()
    assert log_probs.grad is not None
    expected = 1.0 if estimator == "k2" else 1 - math.exp(-1)
    assert log_probs.grad.tolist() == [[pytest.approx(expected), 0.0]]
