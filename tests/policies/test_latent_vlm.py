"""Answers of tokens and latents: what is written is what is replayed and what is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.data.prompts import DataError
from mmrl.models.vlm_family import VlmInputs
from mmrl.ops import vmf
from mmrl.ops.latent_steps import OUTSIDE, slots, span_step
from mmrl.policies.latent_vlm import LatentReplay, LatentVlmPolicy
from mmrl.policies.latent_writing import Draws, feed
from mmrl.types import Prompt, Rollout
from tests.tiny_latent import latent_policy
from tests.tiny_vlm import random_model

GROUP, SEEDS = 3, [1, 2, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> tuple[LatentVlmPolicy, list[Prompt], Rollout]:
    policy, prompts = latent_policy(folder)
    return policy, prompts, policy.rollout(prompts, GROUP, SEEDS)


def record(rollout: Rollout) -> LatentReplay:
    assert isinstance(rollout.replay, LatentReplay)
    return rollout.replay


def plain_states(policy: LatentVlmPolicy, rollout: Rollout) -> Tensor:
    """Each answer whole, alone and without a cache, through the network's own forward."""
    replay, found = record(rollout), []
    for row, ids in enumerate(replay.ids):
        inputs: VlmInputs = replay.prompts[row // GROUP]
        assert inputs.images is not None
        network = policy.module.model
        whole = torch.cat([inputs.ids, ids])
        types = torch.cat([inputs.types, torch.zeros_like(ids)])
        vectors = policy.model.embed(whole[None])[0]
        seen = network.get_image_features(**inputs.images, return_dict=True).pooler_output
        vectors[types == 1] = torch.cat(seen).to(vectors.dtype)
        fed = feed(replay.thoughts[row], replay.hidden[row], vectors.dtype)
        latent = torch.cat([torch.zeros_like(inputs.ids).bool(), replay.latent[row]])
        vectors[latent] = fed[: int(latent.sum())]
        positions, _ = network.get_rope_index(
            whole[None],
            mm_token_type_ids=types[None],
            image_grid_thw=inputs.images["image_grid_thw"],
        )
        out = network.language_model(
            inputs_embeds=vectors[None], position_ids=positions, use_cache=False
        )
        found.append(out.last_hidden_state[0, len(inputs.ids) - 1 : -1])
    return torch.stack(found)


def test_answers_hold_every_kind_of_position(drawn) -> None:
    """Otherwise the other tests would show less than they say."""
    policy, _, rollout = drawn
    replay, free = record(rollout), rollout.weights["token"] != 0
    ends = replay.ids == policy.tokens.end
    after_latent = torch.nn.functional.pad(replay.latent[:, :-1], (1, 0))
    assert (ends & after_latent & free).any(), "a span that the policy ended"
    assert (ends & after_latent & ~free).any(), "a span that the budget ended"
    assert (replay.latent & free).any(), "a latent that the policy chose"
    assert (replay.latent & ~free).any(), "a latent that had to come"
    assert replay.latent[:, -1].any(), "a span that the length cut off"
    assert len(set(replay.latent.sum(1).tolist())) > 2


def test_the_rollout_follows_the_state_machine(drawn) -> None:
    policy, _, rollout = drawn
    replay = record(rollout)
    counts = torch.full((len(replay.ids),), OUTSIDE)
    for step in range(replay.ids.shape[1]):
        ids = replay.ids[:, step]
        made = span_step(ids, counts, tokens=policy.tokens, budget=policy.max_latents)
        assert torch.equal(made.ids, ids)
        assert torch.equal(made.latent, replay.latent[:, step])
        counts = made.counts


def test_one_teacher_forced_pass_repeats_the_generation(drawn) -> None:
    policy, _, rollout = drawn
    found = policy.evaluate(rollout)
    for kind in ("token", "latent"):
        live = rollout.weights[kind] != 0
        gap = (found[kind].log_probs - rollout.behavior[kind].log_probs)[live].abs().max()
        assert gap < 2e-5, kind
    assert found["latent"].mean is not None and rollout.behavior["latent"].mean is not None
    cosine = (found["latent"].mean * rollout.behavior["latent"].mean).sum(-1)
    assert cosine.min() > 1 - 1e-9


def test_states_equal_those_of_a_plain_forward_of_each_row(folder: Path) -> None:
    policy, prompts = latent_policy(folder, dtype=torch.float64)
    rollout = policy.rollout(prompts, GROUP, SEEDS)
    replay = record(rollout)
    _, real = slots(replay.latent, replay.thoughts.shape[1])
    fed = feed(replay.thoughts, replay.hidden, torch.float64)[real]
    shared = policy.hidden_states(replay.prompts, replay.ids, replay.latent, fed, GROUP)
    # the network's norms and rotary angles are float32 whatever its weights are
    torch.testing.assert_close(shared, plain_states(policy, rollout), atol=2e-5, rtol=0)


def test_replay_of_the_same_rows_is_bitwise_equal(drawn) -> None:
    policy, _, rollout = drawn
    first, second = policy.evaluate(rollout), policy.evaluate(rollout)
    for kind in ("token", "latent"):
        assert torch.equal(first[kind].log_probs, second[kind].log_probs)


def test_a_prompts_answers_depend_on_its_own_seed_alone(drawn) -> None:
    policy, prompts, rollout = drawn
    replay = record(rollout)
    alone = record(policy.rollout([prompts[2]], GROUP, [3]))
    width, length = alone.thoughts.shape[1], alone.ids.shape[1]
    assert torch.equal(alone.ids, replay.ids[2 * GROUP :, :length])
    together = replay.thoughts[2 * GROUP :, :width]
    torch.testing.assert_close(alone.thoughts, together, atol=1e-5, rtol=0)
    other = record(policy.rollout([prompts[2]], GROUP, [4]))
    assert not torch.equal(other.ids[:, :4], alone.ids[:, :4])


def test_what_was_thought_decides_what_is_likely_after_it(drawn) -> None:
    policy, _, rollout = drawn
    replay = record(rollout)
    turned = replace(replay, thoughts=-replay.thoughts)
    before, after = (
        policy.evaluate(replace(rollout, replay=r))["token"].log_probs for r in (replay, turned)
    )
    first = replay.latent.to(torch.int8).argmax(1)
    for row in replay.latent.any(1).nonzero()[:, 0].tolist():
        cut = int(first[row])
        assert torch.equal(before[row, : cut + 1], after[row, : cut + 1])
        if (rollout.weights["token"][row, cut + 1 :] != 0).any():
            assert (before[row, cut + 1 :] - after[row, cut + 1 :]).abs().max() > 1e-3


@pytest.mark.parametrize(("dim", "kappa"), [(64, 200.0), (512, 3000.0)])
def test_latents_are_drawn_from_the_law_that_scores_them(dim: int, kappa: float) -> None:
    """Mean cosine and its spread within 4 standard errors; tangents point nowhere special."""
    group, generator = 2000, torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.ones(group, dim, dtype=torch.float64), dim=-1)
    draws = Draws((generator,), group, 1.0, kappa)
    z = draws.directions(mean, torch.ones(group, dtype=torch.bool))
    cosine = (z * mean).sum(-1)
    resultant = vmf.mean_resultant(torch.tensor(kappa, dtype=torch.float64), dim).item()
    variance = 1 - resultant**2 - (dim - 1) / kappa * resultant
    error = (variance / group) ** 0.5
    assert cosine.mean().item() == pytest.approx(resultant, abs=4 * error)
    assert cosine.var().item() == pytest.approx(variance, rel=4 * (2 / group) ** 0.5 * 1.2)
    tangent = torch.nn.functional.normalize(z - cosine[:, None] * mean, dim=-1)
    assert tangent.mean(0).norm().item() < 4 / group**0.5
    kept = draws.directions(mean, torch.zeros(group, dtype=torch.bool))
    assert torch.equal(kept, mean)


def latent_slopes(policy: LatentVlmPolicy, rollout: Rollout) -> float:
    """Largest entry of d sum_latents log p / d weights."""
    policy.module.zero_grad(set_to_none=True)
    stats = policy.evaluate(rollout)["latent"]
    (rollout.weights["latent"] * stats.log_probs).sum().backward()
    grads = [p.grad for p in policy.module.parameters() if p.grad is not None]
    return max(g.abs().max().item() for g in grads)


def test_on_policy_drawn_latents_have_a_gradient_and_modes_have_none(folder: Path) -> None:
    slopes = {}
    for sampling in ("vmf", "mode"):
        policy, prompts = latent_policy(
            folder, dtype=torch.float64, latent_sampling=sampling, kappa=200.0
        )
        rollout = policy.rollout(prompts, GROUP, SEEDS)
        assert (rollout.weights["latent"] != 0).any()
        slopes[sampling] = latent_slopes(policy, rollout)
    assert slopes["vmf"] > 0.1
    assert slopes["mode"] < 1e-3 * slopes["vmf"]


def test_the_expected_score_of_drawn_latents_is_zero() -> None:
    """E[grad log p] = 0, which makes an advantage's baseline harmless: 4 standard errors."""
    count, dim, kappa = 4000, 16, 50.0
    hidden = torch.randn(dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mean = torch.nn.functional.normalize(hidden, dim=0).expand(count, -1)
    z = vmf.sample(mean, torch.full((count,), kappa), torch.Generator().manual_seed(0))
    slopes = kappa / hidden.norm() * (z - (z * mean).sum(-1, keepdim=True) * mean)
    errors = slopes.std(0) / count**0.5
    assert ((slopes.mean(0) / errors).abs() < 4).all()


def test_weights_leave_out_what_the_policy_did_not_choose(folder: Path) -> None:
    policy, prompts = latent_policy(folder)
    rollout = policy.rollout(prompts, GROUP, SEEDS)
    silent = replace(policy, trained_stops=False).rollout(prompts, GROUP, SEEDS)
    latent = record(rollout).latent
    assert torch.equal(record(silent).ids, record(rollout).ids)
    assert (silent.weights["token"][latent] == 0).all()
    assert (rollout.weights["token"][latent] != 0).any()
    for one in (rollout, silent):
        for weights in one.weights.values():
            assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)
            assert len(weights[weights != 0].unique()) == 1, "each decision counts alike"


def test_an_answer_without_a_span_is_an_answer_of_tokens(folder: Path) -> None:
    policy, prompts = latent_policy(folder, max_new_tokens=1)
    rollout = policy.rollout(prompts, GROUP, SEEDS)
    assert rollout.weights["latent"].tolist() == [[0.0]] * 9
    assert rollout.counts["latent"].tolist() == [0.0] * 9
    stats = policy.evaluate(rollout)["latent"]
    assert stats.log_probs.isfinite().all()
    assert stats.mean is not None and stats.mean.norm(dim=-1).sub(1).abs().max() < 1e-12


def test_whole_groups_can_be_cut_out_and_parts_of_an_answer_cannot(drawn) -> None:
    policy, _, rollout = drawn
    whole = policy.evaluate(rollout)
    part = policy.evaluate(rollout.rows(slice(GROUP, 2 * GROUP)))
    for kind in ("token", "latent"):
        expected = whole[kind].log_probs[GROUP : 2 * GROUP]
        live = rollout.weights[kind][GROUP : 2 * GROUP] != 0
        gap = (part[kind].log_probs - expected)[live].abs().max()
        assert gap < 2e-5
    with pytest.raises(ValueError, match="replayed together"):
        record(rollout).decisions(slice(0, 3))


def test_the_likeliest_answer_needs_no_seed(drawn) -> None:
    policy, prompts, _ = drawn
    first, second = policy.sample(prompts, [1, 2, 3]), policy.sample(prompts, [7, 8, 9])
    assert [s.text for s in first] == [s.text for s in second]


@pytest.mark.parametrize("sampling", ["vmf", "mode"])
def test_an_evaluation_above_0_is_drawn_from_each_prompts_own_seed(
    folder: Path, sampling: str
) -> None:
    """Each answer alone, in another place of another batch, is the answer in the batch."""
    policy, prompts = latent_policy(folder, latent_sampling=sampling, eval_temperature=1.0)
    seeds = [11, 12, 13, 14]
    many = policy.sample([prompts[0]] * 4, seeds)
    assert len({sample.text for sample in many}) > 1
    assert [policy.sample([prompts[0]], [seed])[0] for seed in seeds] == many
    assert policy.sample([prompts[1], prompts[0]], [5, 13])[1] == many[2]


def test_an_evaluation_draws_latents_where_a_rollout_does(folder: Path) -> None:
    """Next to temperature 0 tokens are the likeliest: only drawn latents tell seeds apart."""
    told = {}
    for sampling in ("vmf", "mode"):
        policy, prompts = latent_policy(
            folder, latent_sampling=sampling, kappa=5.0, eval_temperature=1e-6
        )
        with torch.no_grad():  # the two are equally likely, and a seed would choose
            start = policy.module.get_input_embeddings().weight[policy.tokens.start]
            start += 0.05 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
        answers = policy.sample([prompts[0]] * 6, list(range(6)))
        told[sampling] = {sample.text for sample in answers}
    greedy = replace(policy, eval_temperature=0.0).sample(prompts[:1], [0])[0].text
    assert told["mode"] == {greedy}
    assert len(told["vmf"]) > 1


def test_the_released_variant_scores_a_latent_one_entry_late(folder: Path) -> None:
    """Its ends are scored by the last latent, its first latents by a token nobody drew."""
    policy, prompts = latent_policy(
        folder, variant="released", latent_sampling="mode", kappa=0.01, latent_weight=0.5
    )
    rollout = policy.rollout(prompts, GROUP, SEEDS)
    replay = record(rollout)
    found = policy.evaluate(rollout)
    _, real = slots(replay.latent, replay.thoughts.shape[1])
    fed = feed(replay.thoughts, replay.hidden, torch.float32)
    hidden = policy.hidden_states(replay.prompts, replay.ids, replay.latent, fed[real], GROUP)
    table = torch.zeros_like(hidden).masked_scatter(replay.latent[..., None], fed[real])
    text = policy.log_probs(hidden, replay.ids)
    entries = found["token"].log_probs
    latent = replay.latent
    checked = 0
    for row in range(len(latent)):
        for t in range(1, latent.shape[1]):
            if latent[row, t - 1] and not latent[row, t]:
                score = 0.01 * (hidden[row, t] * table[row, t - 1]).sum()
                assert entries[row, t].item() == pytest.approx(score.item(), rel=1e-5)
                checked += 1
    first = replay.latent & ~torch.nn.functional.pad(replay.latent[:, :-1], (1, 0))
    rows = first.any(1).nonzero()[:, 0]
    places = first[rows].to(torch.int8).argmax(1)
    expected = text[rows, places].double()
    torch.testing.assert_close(found["latent"].log_probs[rows, 0], expected)
    assert checked >= 3
    cut = replay.latent[:, -1]
    assert cut.any(), "a span that the length cut off"
    counted = (rollout.weights["latent"] != 0).sum(1)
    assert (counted[cut] < replay.latent.sum(1)[cut]).all()
    assert (rollout.weights["token"][replay.latent] == 0).all()


def test_mistakes_are_named(folder: Path) -> None:
    policy, prompts = latent_policy(folder)
    with pytest.raises(ConfigError, match="latent_sampling: the release draws no latents"):
        replace(policy, variant="released")
    with pytest.raises(ConfigError, match=r"prompt_template: has no \{question\}"):
        replace(policy, prompt_template="look")
    with pytest.raises(ConfigError, match=r"model: its tokenizer has no <\|canvas_start\|>"):
        LatentVlmPolicy(random_model("qwen2_5_vl"), 5, 6, kappa=1.0, max_latents=3)
    poisoned = Prompt("what is <|canvas|> here?", prompts[0].images)
    with pytest.raises(DataError, match=r"holds <\|canvas\|>, a token of latent spans"):
        policy.rollout([poisoned], GROUP, [1])
