"""The VLM policy against the plain forward pass, with real models of tiny size."""

from dataclasses import replace

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.models.qwen_vl import VlmInputs
from mmrl.policies.vlm import TokenReplay, VlmPolicy
from mmrl.types import Prompt
from tests.tiny_vlm import FAMILIES, noise_prompts, random_policy

GROUP = 3


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    return noise_prompts(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(params=FAMILIES)
def policy(request) -> VlmPolicy:
    return random_policy(request.param)


def plain_log_probs(policy: VlmPolicy, inputs: VlmInputs, answers: torch.Tensor) -> torch.Tensor:
    """Every row whole through the model's own forward: picture, question, answer."""
    rows = len(answers)
    assert inputs.pixels is not None and inputs.grid is not None
    ids = torch.cat([inputs.ids.expand(rows, -1), answers], dim=1)
    types = torch.cat([inputs.types.expand(rows, -1), torch.zeros_like(answers)], dim=1)
    logits = policy.module(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=types,
        pixel_values=inputs.pixels.repeat(rows, 1),
        image_grid_thw=inputs.grid.repeat(rows, 1),
        use_cache=False,
    ).logits[:, len(inputs.ids) - 1 : -1]
    log_probs = (logits / policy.temperature).log_softmax(-1)
    return log_probs.gather(-1, answers[..., None])[..., 0]


def gradients(policy: VlmPolicy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.module.zero_grad(set_to_none=True)
    loss.backward()
    named = policy.module.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


def test_shared_prefix_gives_the_log_probs_and_gradients_of_the_plain_forward(policy, prompts):
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3])
    weights = torch.randn(rollout.weights["token"].shape) * (rollout.weights["token"] != 0)
    shared = policy.evaluate(rollout)["token"].log_probs
    shared_gradients = gradients(policy, (weights * shared).sum())
    replay = rollout.replay
    plain = torch.cat(
        [
            plain_log_probs(policy, inputs, ids)
            for inputs, ids in zip(replay.prompts, replay.ids.split(GROUP), strict=True)
        ]
    )
    plain_gradients = gradients(policy, (weights * plain).sum())
    live = rollout.weights["token"] != 0
    torch.testing.assert_close(shared[live], plain[live], atol=1e-5, rtol=0)
    assert (shared[~live] == 0).all()
    assert shared_gradients.keys() == plain_gradients.keys()
    vision = [name for name in shared_gradients if "visual" in name]
    assert vision and any(plain_gradients[name].abs().max() > 1e-4 for name in vision)
    for name, expected in plain_gradients.items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            shared_gradients[name], expected, atol=1e-5 * max(scale, 1.0), rtol=0, msg=name
        )


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


@pytest.mark.parametrize("weighting", ["sequence", "decision"])
def test_weights_are_one_mean_over_rows_or_over_tokens(policy, prompts, weighting):
    policy = replace(policy, weighting=weighting, max_new_tokens=12)
    rollout = policy.rollout(prompts, GROUP, [1, 2, 3])
    lengths = torch.tensor([sample.num_tokens for sample in rollout.samples])
    weights = rollout.weights["token"]
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert torch.equal((weights != 0).sum(1), lengths)
    if weighting == "sequence":
        torch.testing.assert_close(weights.sum(1), torch.full((9,), 1 / 9))
        assert rollout.counts["token"] == 9
    else:
        torch.testing.assert_close(weights.sum(1), lengths / lengths.sum())
        assert rollout.counts["token"] == lengths.sum()


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
