"""KL of tokens, latents and denoising steps: references, signs, limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmrl.ops import gaussian
from mmrl.ops.kl import estimate, kl
from mmrl.types import ActionStats

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/objectives.json").read_text())


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimators_have_the_reference_values_and_gradients(kind) -> None:
    case = GOLDEN["kl_estimators_pointwise"]
    new = tensor(case["inputs"]["logp_new"]).requires_grad_(True)
    found = estimate(kind, new, tensor(case["inputs"]["logp_ref"]))
    found.sum().backward()
    torch.testing.assert_close(found.detach(), tensor(case["expected"]["values"][kind]))
    torch.testing.assert_close(new.grad, tensor(case["expected"]["grads"][kind]))


def test_gaussian_kl_and_log_prob_are_those_of_the_distribution_per_element() -> None:
    x, mean, other = torch.randn(
        (3, 2, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    std = tensor([0.3])[0]
    law, anchor = Normal(mean, std), Normal(other, std)
    torch.testing.assert_close(gaussian.log_prob(x, mean, std), law.log_prob(x).flatten(1).mean(1))
    torch.testing.assert_close(
        gaussian.kl(mean, other, std), kl_divergence(law, anchor).flatten(1).mean(1)
    )


def test_denoise_kl_is_zero_at_equality_quadratic_and_silent_without_noise() -> None:
    log_probs, scale = torch.zeros(1, 3), tensor([[0.5, 0.5, 0.0]])
    at = ActionStats(log_probs, torch.zeros(1, 3, 2, dtype=torch.float64), scale)
    one = ActionStats(log_probs, torch.ones(1, 3, 2, dtype=torch.float64), scale)
    two = ActionStats(log_probs, 2 * torch.ones(1, 3, 2, dtype=torch.float64), scale)
    assert kl("denoise", at, at).tolist() == [[0, 0, 0]]
    assert kl("denoise", one, at).tolist() == [[2, 2, 0]]
    assert kl("denoise", two, at).tolist() == [[8, 8, 0]]


def test_a_deterministic_step_has_no_log_prob() -> None:
    with pytest.raises(ValueError, match="std must be > 0"):
        gaussian.log_prob(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(()))
