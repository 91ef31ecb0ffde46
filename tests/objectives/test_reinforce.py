"""The score function: its slope, and that PPO on-policy has the same."""

from __future__ import annotations

import math

import torch

from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.reinforce import Reinforce
from mmrl.types import Actions, ActionStats
from tests.objectives.batches import denoise_batch


def tensor(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


LOG_PROBS = tensor([[-1.0, -2.0], [-0.5, -3.0]])
ADVANTAGES = tensor([1.0, -2.0])


def slopes(objective, batch) -> torch.Tensor:
    leaf = LOG_PROBS.clone().requires_grad_(True)
    loss, _ = objective({"denoise": ActionStats(leaf)}, {}, batch, ADVANTAGES)
    return torch.autograd.grad(loss, leaf)[0]


def test_loss_and_slope_by_hand() -> None:
    """-(1 * -3 - 2 * -3.5) / 4 = -1, slopes -A / 4."""
    batch = denoise_batch(ActionStats(LOG_PROBS), group_size=2)
    loss, metrics = Reinforce()({"denoise": ActionStats(LOG_PROBS)}, {}, batch, ADVANTAGES)
    assert loss.item() == -1
    assert metrics == {"log_prob": -6.5 / 4}
    assert slopes(Reinforce(), batch).tolist() == [[-0.25, -0.25], [0.5, 0.5]]


def test_on_policy_importance_sampling_has_the_same_slope_step_scales_included() -> None:
    scales = tensor([3.0, 0.5])
    batch = denoise_batch(ActionStats(LOG_PROBS), group_size=2, scales=scales)
    clipped = Grpo({"denoise": Clip(1e-4, 1e-4)})
    torch.testing.assert_close(slopes(Reinforce(), batch), slopes(clipped, batch))


def test_dead_decisions_may_hold_anything_and_micro_batches_add_up() -> None:
    weights = tensor([[0.5, 0.0], [0.5, 0.0]])
    batch = denoise_batch(ActionStats(LOG_PROBS), group_size=1, weights=weights)
    poisoned = torch.where(weights != 0, LOG_PROBS, math.inf)
    whole, _ = Reinforce()({"denoise": ActionStats(poisoned)}, {}, batch, ADVANTAGES)
    parts = [
        Reinforce()({"denoise": ActionStats(poisoned[cut])}, {}, batch.rows(cut), ADVANTAGES[cut])[
            0
        ]
        for cut in (slice(0, 1), slice(1, 2))
    ]
    assert whole.item() == sum(part.item() for part in parts) == 0.5 - 0.5
    assert slopes(Reinforce(), batch)[:, 1].tolist() == [0, 0]


def test_action_kinds_add_and_are_logged_apart() -> None:
    batch = denoise_batch(ActionStats(LOG_PROBS), group_size=2)
    batch.weights["token"] = tensor([[0.5], [0.5]])  # pyright: ignore[reportIndexIssue]
    tokens = ActionStats(tensor([[-4.0], [-1.0]]))
    current: Actions = {"denoise": ActionStats(LOG_PROBS), "token": tokens}
    loss, metrics = Reinforce()(current, {}, batch, ADVANTAGES)
    assert loss.item() == -1 + 1
    assert metrics == {"log_prob/denoise": -6.5 / 4, "log_prob/token": -2.5}
