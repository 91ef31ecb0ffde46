"""Action-aware weights: goldens of the loss, where segments begin and end, what is refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmrl.config import UserError
from mmrl.train.action_sft import action_aware, segments, written_forms
from mmrl.train.sft import (
    Example,
    SftConfig,
    Written,
    answer_loss,
    sft,
    token_loss,
    write,
    written_loss,
)
from mmrl.types import Prompt
from tests.tiny_vlm import random_policy

GOLDEN = Path(__file__).parents[1] / "golden" / "gui_rewards.json"
CASES = {
    case["id"]: case
    for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]
    if case["function"] == "weighted token loss"
}
ACTION = {"action_description": "tap", "action_type": "Click", "value": "None"}
REPLY = '<think>go [1, 2]</think><answer>{"value": "None", "point_2d": [412, 30]}</answer>'
WEIGH = action_aware(alpha_action=2.0, alpha_ground=4.0)


def characters(text: str) -> list[tuple[int, int]]:
    return [(index, index + 1) for index in range(len(text))]


@pytest.mark.parametrize("name", CASES)
def test_the_weighted_loss_of_the_golden_case(name):
    inputs, expected = CASES[name]["inputs"], CASES[name]["output"]["value"]
    scale = {"prompt": 0.0, "reason": 1.0, "action": float(inputs["alpha_action"])}
    scale["ground"] = float(inputs["alpha_ground"])
    weights = torch.tensor([[scale[kind] for kind in inputs["segment"]]], dtype=torch.float64)
    assert weights[0].tolist() == expected["weights"]
    assert weights.sum().item() == expected["normaliser"]
    log_probs = torch.tensor([inputs["log_prob"]], dtype=torch.float64)
    for mean in ("sample", "batch"):
        assert token_loss(log_probs, weights, mean=mean).item() == pytest.approx(expected["loss"])


def test_the_two_means_differ_where_answers_have_different_weights():
    """Losses 1 with weight 1 and 2 with weight 3: 1.5 by answer, 7/4 by token."""
    log_probs = torch.tensor([[-1.0], [-2.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    assert token_loss(log_probs, weights, mean="sample").item() == 1.5
    assert token_loss(log_probs, weights, mean="batch").item() == 1.75


def test_a_common_factor_changes_nothing_and_the_loss_lies_between_its_tokens():
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand((3, 7), generator=generator, dtype=torch.float64)
    weights = torch.rand((3, 7), generator=generator, dtype=torch.float64)
    for mean in ("sample", "batch"):
        found = token_loss(log_probs, weights, mean=mean)
        torch.testing.assert_close(found, token_loss(log_probs, 5 * weights, mean=mean))
        assert -log_probs.max() < found < -log_probs.min()


def test_tokens_of_weight_0_may_hold_anything():
    log_probs = torch.tensor([[-1.0, float("nan")]])
    assert token_loss(log_probs, torch.tensor([[2.0, 0.0]]), mean="sample").item() == 1


def test_every_character_is_in_its_segment():
    kinds = segments(REPLY, characters(REPLY), missing="error")
    found = {
        kind: "".join(c for c, k in zip(REPLY, kinds, strict=True) if k == kind)
        for kind in ("reason", "action", "ground")
    }
    assert found["ground"] == "412, 30"
    assert found["action"] == '{"value": "None", "point_2d": []}'
    assert found["reason"] == "<think>go [1, 2]</think><answer></answer>"


def test_a_token_across_a_border_counts_to_the_more_special_side():
    start = REPLY.index("[412")
    offsets = [(start - 2, start + 3), (start + 7, start + 12), (0, 7)]
    assert segments(REPLY, offsets, missing="error") == ["ground", "ground", "reason"]
    border = REPLY.index("]}</answer>")
    assert segments(REPLY, [(border + 1, border + 4)], missing="error") == ["action"]


def test_a_coordinate_weighs_alpha_ground_and_not_its_product_with_alpha_action():
    digits = REPLY.index("412")
    place = [(digits, digits + 1), (digits + 20, digits + 21)]
    assert WEIGH(REPLY, place) == [4.0, 1.0]
    assert WEIGH(REPLY, [(REPLY.index('"value"'), REPLY.index('"value"') + 3)]) == [2.0]


def test_an_action_without_a_place_has_no_coordinates_to_weigh():
    text = '<answer>{"action_type": "Wait", "point_2d": "none"}</answer>'
    assert set(segments(text, characters(text), missing="error")) == {"reason", "action"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("<think>a</think>", "has not an answer block"), ("<answer>{}</answer>", "point_2d")],
)
def test_an_answer_that_cannot_be_weighed_is_an_error_or_plain(text, message):
    with pytest.raises(UserError, match=message):
        WEIGH(text, characters(text))
    plain = action_aware(alpha_action=2.0, alpha_ground=4.0, missing="plain")
    assert set(plain(text, characters(text))) == {1.0}


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_weights_that_have_no_meaning_are_refused(alpha):
    with pytest.raises(UserError, match="alpha_action must be finite"):
        action_aware(alpha_action=alpha, alpha_ground=4.0)
    with pytest.raises(UserError, match="alpha_ground must be finite"):
        action_aware(alpha_action=2.0, alpha_ground=alpha)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, -1.0]], "finite and >= 0"),
        ([[1.0, float("nan")]], "finite"),
        ([[0.0, 0.0]], "no token"),
    ],
)
def test_token_weights_that_have_no_meaning_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        token_loss(torch.zeros(1, 2), torch.tensor(weights), mean="batch")


def test_both_forms_of_a_step_are_written_and_none_is_an_error():
    prompt = Prompt("Open it")
    action = {**ACTION, "point_2d": [4, 5]}
    direct, thought = (
        one.answer for one in written_forms(prompt, action, "why", forms=("direct", "reasoning"))
    )
    assert thought == f"<think>why</think>\n{direct}"
    assert [one.answer for one in written_forms(prompt, action, None)] == [direct]
    with pytest.raises(UserError, match="no form to learn"):
        written_forms(prompt, action, None, forms=("reasoning",))
    with pytest.raises(UserError, match="no form to learn"):
        written_forms(prompt, action, "why", forms=())


@pytest.fixture
def example(tmp_path) -> Example:
    path = tmp_path / "screen.png"
    Image.new("RGB", (112, 112), (9, 9, 9)).save(path)
    action = json.dumps({**ACTION, "point_2d": [412, 30]})
    return Example(Prompt("what is it?", (path,)), f"<answer>{action}</answer>")


@pytest.fixture
def policy():
    policy = random_policy("qwen2_5_vl")
    policy.max_new_tokens = 200
    return policy


def test_real_tokens_get_the_weight_of_their_characters_and_the_end_1(policy, example):
    written = write(policy, example, WEIGH)
    tokens = [policy.model.tokenizer.decode([one]) for one in written.ids.tolist()]
    heavy = "".join(t for t, w in zip(tokens, written.weights.tolist(), strict=True) if w == 4)
    assert heavy.strip(" []:") == "412, 30"
    assert written.weights[-1] == 1


def test_weights_of_1_give_the_plain_loss_and_others_another(policy, example):
    plain = write(policy, example)
    ones = write(policy, example, action_aware(alpha_action=1.0, alpha_ground=1.0))
    heavy = write(policy, example, WEIGH)
    inputs = policy.model.inputs([example.prompt], policy.prompt_template)
    losses = [
        written_loss(policy, inputs, [one], mean="sample").item() for one in (plain, ones, heavy)
    ]
    assert losses[0] == losses[1] == answer_loss(policy, [example.prompt], [plain.ids]).item()
    assert losses[2] != losses[0]


def test_training_logs_how_much_of_the_loss_each_weight_has(policy, example, caplog):
    config = SftConfig(steps=1, batch=2, lr=1e-3, mean="sample")
    with caplog.at_level(logging.INFO):
        [loss] = sft(policy, [example], config, WEIGH)
    assert loss > 0
    assert "1: " in caplog.text and "2: " in caplog.text and "4: " in caplog.text


def test_a_tokenizer_without_offsets_is_named(policy, example):
    class Slow:
        is_fast = False

    policy.model.processor.tokenizer, kept = Slow(), policy.model.processor.tokenizer
    with pytest.raises(UserError, match="Slow does not"):
        write(policy, example, WEIGH)
    policy.model.processor.tokenizer = kept


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 tokens but 3 weights"):
        Written(torch.tensor([1, 2]), torch.ones(3))


def test_kept_inputs_change_no_loss(policy, example):
    examples = [example, Example(Prompt("is it dark?", example.prompt.images), "yes")]
    config = SftConfig(steps=3, batch=2, lr=1e-3, seed=5)
    losses = [
        sft(random_policy_of(policy), examples, replace(config, keep_inputs=keep))
        for keep in (False, True)
    ]
    assert losses[0] == losses[1]


def random_policy_of(policy):
    made = random_policy("qwen2_5_vl")
    made.max_new_tokens = policy.max_new_tokens
    return made
