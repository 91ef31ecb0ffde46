"""The supervised cold start learns answers from pictures, and only answers."""

import pytest
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from mmrl.config import UserError
from mmrl.train.sft import Example, SftConfig, answer_loss, epochs, rate_share, sft
from mmrl.types import Prompt
from tests.tiny_vlm import noise_prompts, random_model, random_policy

CONFIG = SftConfig(steps=40, batch=8, lr=3e-3, seed=0)


@pytest.fixture
def examples(tmp_path) -> list[Example]:
    """Bright pictures are A, dark ones B."""
    made = []
    for level in range(0, 256, 16):
        path = tmp_path / f"{level}.png"
        Image.new("RGB", (112, 112), (level,) * 3).save(path)
        made.append(Example(Prompt("what is it?", (path,)), "A" if level > 127 else "B"))
    return made


def tuned(examples: list[Example], config: SftConfig = CONFIG):
    policy = random_policy("qwen2_5_vl")
    policy.model = random_model("qwen2_5_vl", std=0.02)
    policy.module = policy.model.module
    return policy, sft(policy, examples, config)


def test_the_policy_learns_to_tell_bright_from_dark(examples):
    policy, losses = tuned(examples)
    assert losses[-1] < 0.25 * losses[0]
    samples = policy.sample([one.prompt for one in examples], [0] * len(examples))
    right = sum(s.text == one.answer for s, one in zip(samples, examples, strict=True))
    assert right >= 14
    assert all(sample.finished for sample in samples)


def test_a_seed_gives_the_same_losses_again(examples):
    config = SftConfig(steps=3, batch=4, lr=1e-3, seed=5)
    assert tuned(examples, config)[1] == tuned(examples, config)[1]


def test_an_epoch_shows_every_example_once(examples):
    """At a rate of 0 a loss tells its example; two epochs of 16, four at a time."""
    losses = tuned(examples, SftConfig(steps=32, batch=1, lr=0.0, seed=3))[1]
    first, second = losses[:16], losses[16:]
    assert len(set(first)) == 16
    assert sorted(first) == pytest.approx(sorted(second), abs=1e-6)
    assert first != second


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (3, 7), (5, 5), (1, 3)])
def test_batches_walk_through_one_permutation_after_the_other(count: int, batch: int) -> None:
    found = epochs(count, batch, seed=2)
    rows = [row for _ in range(count) for row in next(found)]
    assert len(rows) == count * batch
    for start in range(0, len(rows), count):
        assert sorted(rows[start : start + count]) == list(range(count))
    again = epochs(count, batch, seed=2)
    assert [row for _ in range(count) for row in next(again)] == rows
    with pytest.raises(UserError, match="no examples to learn from"):
        next(epochs(0, batch, seed=2))


def test_the_rate_rises_over_a_tenth_and_falls_to_0_whatever_the_length() -> None:
    assert [rate_share(step, 20) for step in (0, 1, 2, 11, 19)] == [0.5, 1, 1, 0.5, 1 / 18]
    assert rate_share(0, 1) == 1
    assert [rate_share(step, 2) for step in range(2)] == [1, 1]


@torch.no_grad()
def test_the_loss_is_the_mean_over_answer_tokens_alone(tmp_path):
    policy = random_policy("qwen2_vl")
    prompts = noise_prompts(tmp_path)
    answers = [torch.tensor([40, 41, 42]), torch.tensor([43]), torch.tensor([44, 45])]
    inputs = policy.model.inputs(prompts, policy.prompt_template)
    log_probs = policy.answer_log_probs(inputs, pad_sequence(answers, batch_first=True), 1)
    expected = -torch.cat([log_probs[0], log_probs[1, :1], log_probs[2, :2]]).mean()
    torch.testing.assert_close(answer_loss(policy, prompts, answers), expected)


def test_an_answer_longer_than_the_policy_may_write_is_named(examples):
    long = Example(examples[0].prompt, "the lungs are as clear as they can be today")
    with pytest.raises(UserError, match=r"'the lungs are as clear.*at most 6"):
        tuned([long])


def test_a_rate_too_small_for_bfloat16_still_teaches(examples) -> None:
    config = SftConfig(steps=60, batch=8, lr=1e-4, seed=0, keep_inputs=True)
    exact = tuned(examples, config)[1]
    policy = random_policy("qwen2_5_vl")
    policy.model = random_model("qwen2_5_vl", std=0.02)
    policy.module = policy.model.module.to(torch.bfloat16)
    rounded = sft(policy, examples, config)
    assert exact[0] - exact[-1] > 0.3
    assert rounded[0] - rounded[-1] == pytest.approx(exact[0] - exact[-1], rel=0.2)
