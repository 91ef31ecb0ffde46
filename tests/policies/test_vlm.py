"""The VLM policy: seeds, weights, cuts, with real models of tiny size."""

from dataclasses import replace

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.policies.vlm import TokenReplay, VlmPolicy
from mmrl.types import Prompt
from tests.tiny_vlm import noise_prompts, random_policy

GROUP = 3


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    return noise_prompts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(params=["qwen2_vl", "internvl"])
def policy(request) -> VlmPolicy:
    return random_policy(request.param)


def gradients(policy: VlmPolicy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.module.zero_grad(set_to_none=True)
    loss.backward()
    named = policy.module.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


def test_replay_returns_what_the_sampler_recorded(policy, prompts):
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3])
    found = policy.evaluate(rollout)["token"].log_probs
    gap = (found - rollout.behavior["token"].log_probs).abs().max()
    assert gap < 1e-4
    assert rollout.behavior["token"].log_probs.min() < -0.5


def test_replay_of_the_same_rows_is_bitwise_equal(policy, prompts):
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3]).rows(slice(0, 2 * GROUP))
    first, second = (policy.evaluate(rollout)["token"].log_probs for _ in range(2))
    with torch.no_grad():
        third = policy.evaluate(rollout)["token"].log_probs
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_a_prompts_samples_depend_on_its_own_seed_alone(policy, prompts):
    together = policy.rollout(prompts, GROUP, [1, 2, 3])
    alone = policy.rollout([prompts[2]], GROUP, [3])
    reordered = policy.rollout([prompts[2], prompts[0]], GROUP, [3, 1])
    texts = [sample.text for sample in together.samples]
    assert [sample.text for sample in alone.samples] == texts[2 * GROUP :]
    assert [sample.text for sample in reordered.samples] == texts[2 * GROUP :] + texts[:GROUP]
    other = policy.rollout([prompts[2]], GROUP, [4])
    assert [sample.text for sample in other.samples] != texts[2 * GROUP :]


def test_the_picture_decides_what_is_likely(policy, prompts):
    rollout = policy.rollout([prompts[0]], GROUP, [1])
    other = policy.model.inputs([prompts[1]], policy.prompt_template)
    swapped = replace(rollout, replay=TokenReplay(other, rollout.replay.ids, GROUP))
    found = [policy.evaluate(each)["token"].log_probs for each in (rollout, swapped)]
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_cutting_a_rollout_leaves_the_gradient(policy, prompts):
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3])

    def loss(part: slice) -> torch.Tensor:
        batch = rollout.rows(part)
        return (batch.weights["token"] * policy.evaluate(batch)["token"].log_probs).sum()

    whole = gradients(policy, loss(slice(0, 9)))
    cut = gradients(policy, loss(slice(0, 3)) + loss(slice(3, 9)))
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("weighting", ["sequence", "decision", "length"])
def test_weights_are_one_mean_over_rows_over_tokens_or_over_the_longest_answers(
    policy, prompts, weighting
):
    policy = replace(policy, weighting=weighting, max_new_tokens=12)
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3])
    lengths = torch.tensor([sample.num_tokens for sample in rollout.samples])
    weights = rollout.weights["token"]
    assert torch.equal((weights != 0).sum(1), lengths)
    shares, counts = {
        "sequence": (torch.full((9,), 1 / 9), torch.ones(9)),
        "decision": (lengths / lengths.sum(), lengths.float()),
        "length": (lengths / (9 * 12), torch.ones(9)),
    }[weighting]
    torch.testing.assert_close(weights.sum(1), shares)
    assert torch.equal(rollout.counts["token"], counts)


def test_an_evaluation_at_a_temperature_draws_from_each_prompts_own_seed(policy, prompts):
    policy.eval_temperature = 1.0
    asked = [prompts[0]] * 4
    first = [sample.text for sample in policy.sample(asked, [1, 2, 3, 4])]
    assert [sample.text for sample in policy.sample(asked[:2], [4, 3])] == first[:1:-1]
    assert len(set(first)) > 1


def test_greedy_takes_the_likeliest_token_whatever_the_seed(policy, prompts):
    first, second = policy.sample(prompts, [0, 0, 0]), policy.sample(prompts, [7, 8, 9])
    assert [sample.text for sample in first] == [sample.text for sample in second]
    cold = replace(policy, temperature=1e-4).rollout(prompts, 1, [5, 6, 7])
    assert [sample.text for sample in cold.samples] == [sample.text for sample in first]


def test_sampled_frequencies_follow_the_model(policy, prompts):
    """The first token of 512 samples against the model's own distribution."""
    policy = replace(policy, max_new_tokens=1, rows=512)
    rollout = policy.rollout([prompts[0]], 512, [11])
    chosen = rollout.replay.ids[:, 0]
    likelihood = rollout.behavior["token"].log_probs[:, 0].exp()
    top = chosen.mode().values
    share = (chosen == top).float().mean()
    expected = likelihood[chosen == top][0]
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 512).sqrt()


def test_a_template_without_a_place_for_the_question_is_refused(policy):
    with pytest.raises(ConfigError, match=r"prompt_template: has no .question"):
        replace(policy, prompt_template="What is it?")
