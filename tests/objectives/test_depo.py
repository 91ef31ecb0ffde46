"""DePO: HyLaR's released objective where it is asked for, and the right one in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.depo import ReleasedDepo
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.surrogate import surrogate_loss
from mmrl.ops import vmf
from mmrl.ops.kl import estimate
from mmrl.ops.latent_steps import (
    at_slots,
    latent_stats,
    released_entries,
    released_stats,
    slots,
)
from mmrl.ops.weights import per_decision
from mmrl.trust_region.penalty import anchor_kls, penalty
from mmrl.types import ActionKind, Actions, ActionStats, Prompt, Rollout, TextSample
from tests.objectives.batches import PlainReplay

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/depo.json").read_text())
FULL = {case["name"]: case for case in GOLDEN["full_objective"]}
CORRECT = [name for name, case in FULL.items() if case["alignment"] == "correct"]
NORMALISED = [name for name in CORRECT if FULL[name]["normalise"]]


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Case:
    """One toy batch of the reference as tables over the entries of the response."""

    def __init__(self, name: str) -> None:
        self.given = FULL[name]
        self.kappa = self.given["kappa"]
        length, whole = self.given["response_length"], len(self.given["input_ids"][0])
        self.before = slice(whole - length - 1, whole - 1)
        self.latent = torch.zeros(2, length, dtype=torch.bool)
        self.fed = torch.zeros(2, length, 4, dtype=torch.float64)
        places = self.given["latent_input_positions"]
        for (row, position), z in zip(places, self.given["latents"], strict=True):
            self.latent[row, position - whole + length] = True
            self.fed[row, position - whole + length] = tensor(z)
        self.where, self.real = slots(self.latent)
        self.hidden = tensor(self.given["hidden_new"]).requires_grad_(True)
        self.text = tensor(self.given["text_logp_new"]).requires_grad_(True)
        self.advantages = tensor(self.given["advantages"])[:, 0]

    def actions(self, hidden: Tensor, text: Tensor) -> Actions:
        hidden, text = hidden[:, self.before], text[:, self.before]
        if self.given["alignment"] == "repo":
            entries = released_entries(hidden, text, self.fed, self.latent, self.kappa)
            stats = released_stats(entries, self.where, self.kappa)
            return {"token": ActionStats(entries), "latent": stats}
        thoughts = at_slots(self.fed, self.where)
        stats = latent_stats(at_slots(hidden, self.where), thoughts, self.real, self.kappa)
        return {"token": ActionStats(text), "latent": stats}

    def of(self, which: str) -> Actions:
        return self.actions(
            tensor(self.given[f"hidden_{which}"]), tensor(self.given[f"text_logp_{which}"])
        )

    def current(self) -> Actions:
        return self.actions(self.hidden, self.text)

    def batch(self) -> Rollout:
        masks = {"token": tensor(self.given["token_mask"]), "latent": self.real.double()}
        weights: dict[ActionKind, Tensor] = {
            "token": per_decision(masks["token"]),
            "latent": per_decision(masks["latent"]),
        }
        alpha = torch.full((self.real.shape[1],), self.given["alpha"], dtype=torch.float64)
        return Rollout(
            samples=[TextSample(Prompt("q"), "a")] * 2,
            group_size=2,
            behavior=self.of("old"),
            weights=weights,
            counts={"token": torch.ones(2), "latent": torch.ones(2)},
            replay=PlainReplay(),
            scales={"latent": alpha},
        )

    def grpo(self, **clips: Clip) -> Grpo:
        chosen: dict[ActionKind, Clip] = {
            "token": clips.get("token", Clip(*self.given["clip_tok"])),
            "latent": clips.get("latent", Clip(*self.given["clip_lat"])),
        }
        return Grpo(chosen)

    def kls(self, current: Actions, batch: Rollout) -> Mapping[str, Tensor]:
        """Text against the reference model; latents against the policy that rolled out."""
        anchors: dict[str, Actions] = {"fixed": {"token": self.of("ref")["token"]}}
        if self.given["alignment"] == "correct":
            anchors["periodic"] = {"latent": self.of("old")["latent"]}
        return anchor_kls(current, anchors, batch.weights, estimator="k3")


def assert_gradients(case: Case, total: Tensor) -> None:
    slopes = torch.autograd.grad(total, (case.hidden, case.text))
    for found, name in zip(slopes, ("grad_hidden_new", "grad_text_logp_new"), strict=True):
        torch.testing.assert_close(found, tensor(case.given[name]), atol=1e-8, rtol=1e-7)


def test_the_released_objective_and_its_gradients_equal_the_reference() -> None:
    case = Case("repo_as_coded")
    current, batch = case.current(), case.batch()
    given = case.given
    for name, found in (("new", current), ("old", batch.behavior), ("ref", case.of("ref"))):
        torch.testing.assert_close(
            found["token"].log_probs, tensor(given[f"resp_logp_{name}"]), atol=1e-12, rtol=0
        )
    objective = ReleasedDepo(case.grpo(), pull=given["beta_lat"])
    loss, metrics = objective(current, {}, batch, case.advantages)
    kl = case.kls(current, batch)["fixed/token"]
    assert metrics["latent_pull"] == pytest.approx(given["vmf_kl"], abs=1e-12)
    assert metrics["latent_pull"] < 0, "it is no KL"
    assert kl.item() == pytest.approx(given["kl_tok"], abs=1e-8)
    total = loss + given["beta_tok"] * kl
    assert total.item() == pytest.approx(given["total"], abs=1e-8)
    assert_gradients(case, total)


@pytest.mark.parametrize("name", NORMALISED)
def test_unit_directions_at_the_predictor_equal_the_reference(name: str) -> None:
    """The exact KL is A_d times its kappa (1 - cos): the coefficient is divided by A_d here."""
    case = Case(name)
    current, batch, given = case.current(), case.batch(), case.given
    resultant = vmf.mean_resultant(tensor(given["kappa"]), 4).item()
    loss, metrics = case.grpo()(current, {}, batch, case.advantages)
    kls = case.kls(current, batch)
    assert kls["periodic/latent"].item() == pytest.approx(
        resultant * given["vmf_kl"], abs=1e-12, rel=1e-9
    )
    coefficients = {
        "fixed/token": given["beta_tok"],
        "periodic/latent": given["beta_lat"] / resultant,
    }
    total = loss + penalty(kls, coefficients)
    assert total.item() == pytest.approx(given["total"], abs=1e-8)
    assert_gradients(case, total)
    ends = given["clipfrac_lat"]
    assert metrics["clip_fraction/latent"] == pytest.approx(sum(ends), abs=1e-8)


@pytest.mark.parametrize("name", CORRECT)
def test_the_end_of_a_span_is_scored_as_the_token_that_it_is(name: str) -> None:
    case = Case(name)
    found = case.current()["token"].log_probs
    end = case.given["input_ids"][0].index(case.given["end_id"])
    entry = end - (len(case.given["input_ids"][0]) - case.given["response_length"])
    assert found[0, entry].item() == case.given["text_logp_new"][0][end - 1]
    released = Case("repo_as_coded").current()["token"].log_probs[0, entry].item()
    assert released != case.given["text_logp_new"][0][end - 1]


def test_cosine_is_1_at_the_predictor_and_not_where_the_latent_is_fed() -> None:
    case = Case("correct_alignment_normalised_kappa10")
    hidden = tensor(case.given["hidden_old"])
    z = at_slots(case.fed, case.where)[case.real]
    for shift, matches in ((0, True), (1, False)):
        part = slice(case.before.start + shift, case.before.stop + shift)
        states = at_slots(hidden[:, part], case.where)[case.real]
        cosine = torch.nn.functional.cosine_similarity(states, z, dim=-1)
        assert bool((cosine > 1 - 1e-12).all()) is matches


def test_at_the_mode_the_latents_gradient_is_zero_on_policy() -> None:
    case = Case("correct_alignment_normalised_on_policy")
    current, batch = case.current(), case.batch()
    kl = case.kls(current, batch)["periodic/latent"]
    assert kl.item() == pytest.approx(0, abs=1e-12)
    loss, metrics = case.grpo()(current, {}, batch, case.advantages)
    slope, _ = torch.autograd.grad(loss + kl, (case.hidden, case.text), materialize_grads=True)
    assert slope.abs().max() < 1e-12
    assert metrics["ratio/latent"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["clip_fraction/token"] == metrics["clip_fraction/latent"] == 0.0


def test_one_kinds_clip_never_reaches_the_other() -> None:
    """Bit for bit: the text's slope under any latent clip, and the latents' under any text clip."""
    name = "correct_alignment_normalised_kappa10"
    slopes: dict[tuple[str, str], tuple[Tensor, ...]] = {}
    for label, clips in (
        ("tight latent", {"latent": Clip(1e-3, 1e-3)}),
        ("wide latent", {"latent": Clip(0.9, 9.0)}),
        ("tight text", {"token": Clip(1e-3, 1e-3)}),
        ("wide text", {"token": Clip(0.9, 9.0)}),
    ):
        case = Case(name)
        loss, _ = case.grpo(**clips)(case.current(), {}, case.batch(), case.advantages)
        found = torch.autograd.grad(loss, (case.hidden, case.text))
        slopes[label, "hidden"], slopes[label, "text"] = (found[0],), (found[1],)
    assert torch.equal(slopes["tight latent", "text"][0], slopes["wide latent", "text"][0])
    assert not torch.equal(slopes["tight latent", "hidden"][0], slopes["wide latent", "hidden"][0])
    assert torch.equal(slopes["tight text", "hidden"][0], slopes["wide text", "hidden"][0])
    assert not torch.equal(slopes["tight text", "text"][0], slopes["wide text", "text"][0])


def test_without_latents_depo_is_grpo_on_tokens() -> None:
    case = Case("correct_alignment_normalised_kappa10")
    current, batch = case.current(), case.batch()
    silent = Rollout(
        **{
            **batch.__dict__,
            "weights": {**batch.weights, "latent": torch.zeros_like(batch.weights["latent"])},
        }
    )
    both, _ = case.grpo()(current, {}, silent, case.advantages)
    plain, _ = surrogate_loss(
        Clip(0.2, 0.28, 3.0),
        current["token"].log_probs,
        batch.behavior["token"].log_probs,
        case.advantages,
        batch.weights["token"],
    )
    assert both.item() == plain.item()


@pytest.mark.parametrize("case", GOLDEN["policy_loss"], ids=lambda c: c["name"])
def test_the_dual_clip_equals_the_reference(case: dict) -> None:
    """Each token is a row of its own, as the reference gives each its advantage."""
    new, old, advantages, mask = (
        tensor(case[name]).flatten()
        for name in ("log_probs", "old_log_probs", "advantages", "mask")
    )
    new.requires_grad_(True)
    loss, metrics = surrogate_loss(
        Clip(case["clip_low"], case["clip_high"], case["clip_dual"]),
        new[:, None],
        old[:, None],
        advantages,
        per_decision(mask[:, None]),
    )
    (slope,) = torch.autograd.grad(loss, new)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-8, rel=1e-8)
    expected = tensor(case["grad_log_probs"]).flatten()
    torch.testing.assert_close(slope, expected, atol=1e-8, rtol=0)
    clipped = case["clipfrac_higher"] + case["clipfrac_lower"]
    assert metrics["clip_fraction"] == pytest.approx(clipped, abs=1e-8)


def test_k3_is_the_releases_until_its_cut_which_lets_the_worst_tokens_go() -> None:
    (case,) = GOLDEN["kl_penalty"]
    new = tensor(case["log_probs"]).requires_grad_(True)
    found = estimate("k3", new, tensor(case["ref_log_probs"]))
    assert found[:3].tolist() == pytest.approx(case["out"][:3], abs=1e-6)
    assert case["out"][3] == 10.0 < found[3].item()
    (slope,) = torch.autograd.grad(found.sum(), new)
    assert slope[3].item() < -1e4


@pytest.mark.parametrize("case", GOLDEN["advantage"], ids=lambda c: f"{c['fn']}-{c['scores'][1]}")
def test_advantages_equal_the_reference(case: dict) -> None:
    groups = torch.tensor(case["scores"]).view(len(set(case["groups"])), -1)
    found = group_normalized(groups, std="sample", eps=1e-6)
    assert found.flatten().tolist() == pytest.approx(case["adv_per_seq"], abs=1e-6)
