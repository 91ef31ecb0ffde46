"""Latent steps: HyLaR's state machines and scores, and the scores that are right."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.ops import vmf
from mmrl.ops.latent_steps import (
    OUTSIDE,
    SpanTokens,
    at_slots,
    latent_stats,
    log_go_on,
    released_entries,
    released_stats,
    slots,
    span_step,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/depo.json").read_text())
TOKENS = SpanTokens(start=6, latent=5, end=7)


def run(sampled: list[int], budget: int, first: int | None = None) -> tuple[list, list, list]:
    """Written ids, latent positions and free positions of one row."""
    counts = torch.tensor([0 if first == TOKENS.start else OUTSIDE])
    ids, latent, free = [], [], []
    for token in sampled:
        step = span_step(torch.tensor([token]), counts, tokens=TOKENS, budget=budget)
        counts = step.counts
        ids.append(step.ids.item())
        latent.append(step.latent.item())
        free.append(step.free.item())
    return ids, latent, free


@pytest.mark.parametrize("case", GOLDEN["vllm_state_machine"], ids=lambda c: str(c["sampled"]))
def test_the_state_machine_is_that_of_the_released_rollout(case: dict) -> None:
    ids, latent, _ = run(case["sampled"], case["budget"])
    assert ids == case["emitted"]
    recorded = [step is not None for step in case["latent_emitted_from_step"]]
    assert latent == recorded
    fed = [step is not None for step in case["input_override_from_step"]]
    assert fed == [False, *recorded[:-1]]


@pytest.mark.parametrize("case", GOLDEN["hf_state_machine"], ids=lambda c: str(c["sampled"]))
def test_the_released_evaluation_differs_only_in_a_span_without_latents(case: dict) -> None:
    ids, _, _ = run(case["sampled"], case["budget"], case["first_input"])
    if case["sampled"] == [7, 3, 4]:
        assert (ids, case["emitted"]) == ([5, 5, 5], [7, 3, 4])
    else:
        assert ids == case["emitted"]


def test_first_latent_and_forced_end_are_no_choices() -> None:
    """Start, a latent that must come, one that was chosen, an end that must come."""
    ids, latent, free = run([6, 7, 3, 3, 9], budget=2)
    assert ids == [6, 5, 5, 7, 9]
    assert latent == [False, True, True, False, False]
    assert free == [True, False, True, False, True]


def test_rows_move_independently() -> None:
    counts = torch.tensor([OUTSIDE, OUTSIDE, 0, 2, 3])
    step = span_step(torch.tensor([6, 7, 7, 7, 4]), counts, tokens=TOKENS, budget=3)
    assert step.ids.tolist() == [6, 7, 5, 7, 7]
    assert step.counts.tolist() == [0, OUTSIDE, 1, OUTSIDE, OUTSIDE]
    assert step.free.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("case", GOLDEN["masks"], ids=lambda c: c["name"])
def test_latent_positions_are_recorded_where_the_release_pairs_tokens(case: dict) -> None:
    """Ours come from the rollout itself, so an unfinished span counts and none can be mispaired."""
    rows = [row[-case["response_length"] :] for row in case["input_ids"]]
    for ids, expected in zip(rows, case["latent_mask"], strict=True):
        written, latent, _ = run(ids, budget=32)
        if case["name"] in ("two_rows_left_pad", "no_span"):
            assert [written, latent] == [ids, [bool(x) for x in expected]]
        elif case["name"] == "unterminated_span":
            assert written == ids
            assert latent == [False, True, True, False, False, False, True, True]
        else:
            assert written != ids


def test_slots_list_each_rows_latents_in_order() -> None:
    latent = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    where, real = slots(latent)
    assert where[0].tolist() == [1, 2, 4] and where[2, 0] == 0
    assert real.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    table = torch.arange(15.0).view(3, 5)
    assert at_slots(table, where)[real].tolist() == [1.0, 2.0, 4.0, 10.0]
    assert slots(torch.zeros(2, 4).bool())[0].shape == (2, 1)


def test_going_on_is_the_rest_of_ending() -> None:
    log_end = torch.tensor([0.25, 1e-9, 1 - 1e-5], dtype=torch.float64).log()
    expected = [math.log(0.75), math.log1p(-1e-9), math.log(1e-5)]
    assert log_go_on(log_end).tolist() == pytest.approx(expected, rel=1e-9)
    certain = torch.zeros(1, requires_grad=True)
    log_go_on(certain).sum().backward()
    assert certain.grad is not None and certain.grad.isfinite().all()


@pytest.mark.parametrize("case", GOLDEN["latent_scores"], ids=lambda c: str(c["D"]))
def test_scores_equal_the_reference_up_to_the_constant(case: dict) -> None:
    hidden = torch.tensor([case["mu"]], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([case["z"]], dtype=torch.float64)
    kappa, real = case["kappa"], torch.ones(1, len(case["z"])).bool()
    stats = latent_stats(hidden, z, real, kappa)
    constant = vmf.log_normalizer(torch.tensor(kappa, dtype=torch.float64), case["D"])
    found = stats.log_probs[0] - constant
    assert found.tolist() == pytest.approx(case["normalised_log_prob_no_const"], abs=1e-10)
    (slope,) = torch.autograd.grad(stats.log_probs.sum(), hidden)
    expected = case["grad_sum_normalised_log_prob_wrt_mu"]
    torch.testing.assert_close(slope[0], torch.tensor(expected).double(), atol=1e-8, rtol=1e-6)
    assert (slope * hidden).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("case", GOLDEN["latent_scores"], ids=lambda c: str(c["D"]))
def test_released_scores_and_their_stand_in_for_a_kl_equal_the_reference(case: dict) -> None:
    """Every latent at position 0, its score at entry 1."""
    hidden, z = (torch.tensor(case[name]).double() for name in ("mu", "z"))
    latent = torch.tensor([True, False]).expand(len(z), -1)
    states = torch.stack([torch.zeros_like(hidden), hidden], dim=1)
    fed = torch.stack([z, torch.zeros_like(z)], dim=1)
    text = torch.full(latent.shape, -1.0, dtype=torch.float64)
    entries = released_entries(states, text, fed, latent, case["kappa"])
    assert entries[:, 0].tolist() == [-1.0] * len(z)
    assert entries[:, 1].tolist() == pytest.approx(case["repo_log_prob"], abs=1e-6)
    stats = released_stats(entries, slots(latent)[0], case["kappa"])
    assert stats.mean is not None and stats.scale is not None
    drift = (stats.scale * (1 - stats.mean[..., 0])).mean()
    assert drift.item() == pytest.approx(case["repo_vmf_kl"], abs=1e-6)


def test_the_score_ignores_the_length_of_the_state_and_the_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, z = (torch.randn(2, 3, 8, generator=generator).double() for _ in "hz")
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator).double())
    real = torch.ones(2, 3).bool()
    plain = latent_stats(hidden, z, real, 30.0).log_probs
    torch.testing.assert_close(latent_stats(7 * hidden, z, real, 30.0).log_probs, plain)
    torch.testing.assert_close(latent_stats(hidden @ turn, z @ turn, real, 30.0).log_probs, plain)


def test_an_entry_that_is_not_real_has_no_gradient() -> None:
    hidden = torch.zeros(1, 2, 4, dtype=torch.float64)
    hidden[0, 0] = torch.tensor([1.0, 2.0, 0.0, 0.0])
    hidden.requires_grad_(True)
    real = torch.tensor([[True, False]])
    stats = latent_stats(hidden, torch.zeros(1, 2, 4) + 1, real, 5.0)
    stats.log_probs.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[0, 1].tolist() == [0.0] * 4
    assert hidden.grad[0, 0].abs().max() > 0
