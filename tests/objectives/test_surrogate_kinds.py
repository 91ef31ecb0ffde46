"""Surrogates beside PPO's clip: references, identities, slopes, what padding may hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import Surrogate, surrogate_loss
from mmrl.objectives.surrogate_kinds import SurrogateConfig
from mmrl.ops.weights import per_decision, per_length, per_sequence

CASES = json.loads((Path(__file__).parent.parent / "golden" / "objectives.json").read_text())
KINDS = ["gspo", "cispo", "cispo_band", "sapo", "gmpo", "vespo", "dppo", "r2vpo"]


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def of(kind: str, **fields: Any) -> Surrogate:
    return TypeAdapter(SurrogateConfig).validate_python({"kind": kind, **fields})


def band(hyper: dict) -> dict[str, float]:
    return {"low": hyper["eps_low"], "high": hyper["eps_high"]}


REFERENCES = {
    "dr_grpo": lambda h: Clip(h["eps_low"], h["eps_high"]),
    "dual_clip": lambda h: Clip(h["eps_low"], h["eps_high"], h["dual"]),
    "dual_clip_inactive": lambda h: Clip(h["eps_low"], h["eps_high"], h["dual"]),
    "extreme_ratio_clamped": lambda h: Clip(h["eps_low"], h["eps_high"], h["dual"]),
    "gspo_paper": lambda h: of("gspo"),
    "gspo_wide": lambda h: of("gspo", **band(h)),
    "gspo_clipped_rows": lambda h: of("gspo", **band(h)),
    "rloo_sequence_gate": lambda h: of("gspo", over="sum", **band(h)),
    "luspo": lambda h: of("gspo", **band(h)),
    "cispo_cap_5.0": lambda h: of("cispo"),
    "cispo_cap_1.5": lambda h: of("cispo", cap=h["cap"]),
    "cispo_band": lambda h: of("cispo_band", **band(h)),
    "sapo_on_policy": lambda h: of("sapo"),
    "gmpo": lambda h: of("gmpo"),
    "vespo": lambda h: of("vespo"),
    "dppo_tv": lambda h: of("dppo"),
    "r2vpo_default": lambda h: of("r2vpo"),
    "r2vpo_lambda0": lambda h: of("r2vpo", lam=0.0),
    "r2vpo_strong": lambda h: of("r2vpo", lam=h["lam"]),
    "r2vpo_on_policy": lambda h: of("r2vpo"),
}


def shares(mask: Tensor, hyper: dict) -> Tensor:
    match hyper["agg"]:
        case "token_mean":
            return per_decision(mask)
        case "seq_sum_max_len":
            return per_length(mask, hyper["max_len"])
        case "seq_mean * length":
            return per_length(mask, 1)
        case _:
            return per_sequence(mask)


@pytest.mark.parametrize("name", REFERENCES)
def test_loss_gradient_and_bounds_equal_the_reference(name: str) -> None:
    given, hyper, expected = (CASES[name][key] for key in ("inputs", "hyper", "expected"))
    new = tensor(given["logp_new"]).requires_grad_()
    loss, metrics = surrogate_loss(
        REFERENCES[name](hyper),
        new,
        tensor(given["logp_old"]),
        tensor(given["advantages"]),
        shares(tensor(given["mask"]), hyper),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-12)
    torch.testing.assert_close(new.grad, tensor(expected["grad_logp_new"]), rtol=0, atol=1e-12)
    if hyper["agg"] == "token_mean" and not hyper.get("dual"):
        low, high = expected.get("clip_frac_low"), expected.get("clip_frac_high")
        assert low is None or metrics["clip_fraction_low"] == pytest.approx(low, abs=1e-12)
        assert high is None or metrics["clip_fraction_high"] == pytest.approx(high, abs=1e-12)


@pytest.mark.parametrize(
    ("curve", "surrogate", "advantage"),
    [
        ("ppo_pos", Clip(0.2, 0.28), 1.0),
        ("ppo_neg", Clip(0.2, 0.28), -1.0),
        ("sapo_pos", of("sapo"), 1.0),
        ("r2vpo", of("r2vpo", lam=0.5), 1.0),
    ],
)
def test_values_and_slopes_over_the_ratio_are_the_reference_curve(
    curve: str, surrogate: Surrogate, advantage: float
) -> None:
    case = CASES["surrogate_slopes"]
    ratio = tensor(case["inputs"]["ratio"])[:, None].requires_grad_()
    expected = case["expected"][curve]
    loss, _ = surrogate_loss(
        surrogate,
        ratio.log(),
        torch.zeros_like(ratio),
        torch.full((len(ratio),), advantage, dtype=torch.float64),
        torch.ones_like(ratio),
    )
    loss.backward()
    assert ratio.grad is not None
    slopes = -advantage * ratio.grad[:, 0]
    torch.testing.assert_close(slopes, tensor(expected["slope"]), rtol=0, atol=1e-12)
    assert -advantage * loss.item() == pytest.approx(sum(expected["value"]), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_on_policy_every_gradient_is_the_score_function(kind: str) -> None:
    """At ratio 1 the gradient is -w A, whatever the surrogate does away from it."""
    log_probs = tensor([[-1.0, -0.02, -3.0], [-0.5, -3.0, 7.0]]).requires_grad_()
    advantages = tensor([1.0, -2.0])
    weights = per_sequence(tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
    loss, metrics = surrogate_loss(of(kind), log_probs, log_probs.detach(), advantages, weights)
    loss.backward()
    torch.testing.assert_close(log_probs.grad, -weights * advantages[:, None], rtol=1e-12, atol=0)
    assert metrics["clip_fraction"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 700.0])
def test_padding_may_hold_anything(kind: str, poison: float) -> None:
    def run(padding: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        new = tensor([[-1.0, -2.0, padding], [-0.4, padding, padding], [padding] * 3])
        new.requires_grad_()
        old = tensor([[-1.2, -1.5, -padding], [-0.5, padding, 0.0], [padding] * 3])
        weights = per_decision(tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        loss, metrics = surrogate_loss(of(kind), new, old, tensor([0.7, -1.3, 2.0]), weights)
        loss.backward()
        assert new.grad is not None
        return loss, new.grad, metrics

    loss, gradient, metrics = run(poison)
    clean_loss, clean_gradient, clean_metrics = run(0.0)
    assert loss.item() == clean_loss.item()
    torch.testing.assert_close(gradient, clean_gradient, rtol=0, atol=0)
    assert metrics == clean_metrics


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("log_ratio", [25.0, 100.0, 1e4, -25.0, -1e4])
def test_a_runaway_token_leaves_the_loss_finite(
    kind: str, advantage: float, log_ratio: float
) -> None:
    new = torch.tensor([[log_ratio, -1.0], [-1.0, -1.0]], requires_grad=True)
    old = torch.tensor([[0.0, -1.0], [-1.0, -1.0]])
    gains = torch.tensor([advantage, advantage])
    loss, metrics = surrogate_loss(of(kind), new, old, gains, per_decision(torch.ones(2, 2)))
    loss.backward()
    assert loss.isfinite()
    assert new.grad is not None
    assert new.grad.isfinite().all()
    assert new.grad[1].tolist() == pytest.approx([-0.25 * advantage] * 2)
    assert all(math.isfinite(value) for value in metrics.values())


def test_rows_that_share_a_batch_do_not_share_a_ratio() -> None:
    """A sequence ratio counts the live tokens of its own row, so micro-batches add up."""
    generator = torch.Generator().manual_seed(0)
    new, old = torch.randn((2, 4, 3), generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    mask = tensor([[1.0, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]])
    weights = per_sequence(mask)
    for kind in KINDS:
        whole, metrics = surrogate_loss(of(kind), new, old, advantages, weights)
        parts = [
            surrogate_loss(of(kind), new[p], old[p], advantages[p], weights[p])
            for p in (slice(0, 1), slice(1, 4))
        ]
        torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
        for name, value in metrics.items():
            assert sum(found[name] for _, found in parts) == pytest.approx(value)


def test_probability_distance_holds_likely_tokens_and_lets_unlikely_ones_go() -> None:
    """0.5 -> 0.56 has moved by 0.06, 0.001 -> 0.01 by 0.009 although its ratio is 10."""
    old = tensor([[0.5, 0.001]]).log()
    new = tensor([[0.56, 0.01]]).log().requires_grad_()
    loss, metrics = surrogate_loss(of("dppo"), new, old, tensor([1.0]), tensor([[0.5, 0.5]]))
    loss.backward()
    assert new.grad is not None
    assert new.grad[0].tolist() == pytest.approx([0.0, -5.0])
    assert metrics["clip_fraction_high"] == 0.5
