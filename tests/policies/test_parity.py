"""What becomes of a rollout whose answers an engine wrote."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from mmrl.config import ConfigError, UserError
from mmrl.models.vlm import VlmModel
from mmrl.policies.answers import Answers
from mmrl.policies.engine_config import ParityConfig, VllmConfig
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.vllm_engine import VllmEngine, engine_rank, question, read_answers
from mmrl.policies.vlm import VlmPolicy
from mmrl.types import Prompt
from tests.tiny_vlm import noise_prompts, random_policy

GROUP = 3
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    return noise_prompts(tmp_path_factory.mktemp("pictures"))


@dataclass
class OtherTemperature:
    """An engine that is another policy: its log-probs are off by what its temperature makes."""

    policy: VlmPolicy
    pushed: list[VlmModel] = field(default_factory=list)
    chats: list[str] = field(default_factory=list)

    def push(self, model: VlmModel) -> None:
        self.pushed.append(model)

    def answer(
        self,
        prompts: Sequence[Prompt],
        chats: Sequence[str],
        group_size: int,
        seeds: Sequence[int],
    ) -> Answers:
        self.chats += chats
        found = self.policy.rollout(prompts, group_size, seeds)
        mask = (found.weights["token"] != 0).float()
        return Answers(found.replay.ids, found.behavior["token"].log_probs, mask)


def engine_policy(temperature: float, **parity) -> VlmPolicy:
    policy = random_policy("smolvlm")
    engine = OtherTemperature(replace(policy, temperature=temperature))
    return replace(policy, engine=engine, parity=ParityConfig(**parity))


@pytest.mark.parametrize("mode", ["warn", "correct", "stop"])
def test_an_engine_that_agrees_changes_nothing(prompts, mode, caplog) -> None:
    policy = engine_policy(0.7, mode=mode, tolerance=1e-4)
    own = replace(policy, engine=None).rollout(prompts, GROUP, SEEDS)
    found = policy.rollout(prompts, GROUP, SEEDS)
    assert found.samples == own.samples
    assert torch.equal(found.replay.ids, own.replay.ids)
    torch.testing.assert_close(found.weights["token"], own.weights["token"], atol=1e-5, rtol=0)
    assert not caplog.records


def test_weights_are_handed_over_once_a_rollout_and_prompts_as_text(prompts) -> None:
    policy = engine_policy(0.7)
    policy.rollout(prompts, GROUP, SEEDS)
    engine = policy.engine
    assert isinstance(engine, OtherTemperature)
    assert engine.pushed == [policy.model]
    assert [chat.count("<image>") for chat in engine.chats] == [1, 1, 1]


def test_a_gap_beyond_the_tolerance_is_a_line_in_the_log(prompts, caplog) -> None:
    policy = engine_policy(1.5, mode="warn")
    with caplog.at_level(logging.WARNING):
        found = policy.rollout(prompts, GROUP, SEEDS)
    assert "nats a token apart" in caplog.text
    assert found.weights["token"].sum().item() == pytest.approx(1.0)


def test_a_gap_beyond_the_tolerance_stops_the_run(prompts) -> None:
    with pytest.raises(UserError, match=r"nats a token apart .* same weights"):
        engine_policy(1.5, mode="stop").rollout(prompts, GROUP, SEEDS)


def test_correction_weighs_tokens_by_the_ratio_up_to_the_cap(prompts) -> None:
    policy = engine_policy(1.5, mode="correct", cap=1.2)
    plain = replace(policy, parity=ParityConfig(mode="warn")).rollout(prompts, GROUP, SEEDS)
    found = policy.rollout(prompts, GROUP, SEEDS)
    live = plain.weights["token"] != 0
    recorded, mine = found.behavior["token"].log_probs, policy.evaluate(found)["token"].log_probs
    ratio = (found.weights["token"] / plain.weights["token"])[live]
    torch.testing.assert_close(ratio, (mine - recorded)[live].exp().clamp(max=1.2).detach())
    assert ratio.min() < 0.8 and ratio.max() == pytest.approx(1.2)


def test_a_log_prob_that_is_not_a_number_stops_the_run_in_any_mode(prompts) -> None:
    policy = engine_policy(0.7, mode="correct")
    engine = policy.engine
    assert isinstance(engine, OtherTemperature)
    written = engine.answer(prompts, [], GROUP, SEEDS)
    written.log_probs[0, 0] = torch.nan
    engine.answer = lambda *_: written
    with pytest.raises(UserError, match="largest nan"):
        policy.rollout(prompts, GROUP, SEEDS)


def completion(index: int, tokens: list[int], log_probs: list[float]) -> SimpleNamespace:
    """What vLLM returns of an answer: at each place a few tokens, the sampled one among them."""
    places = [
        {token: SimpleNamespace(logprob=value), 999: SimpleNamespace(logprob=-0.01)}
        for token, value in zip(tokens, log_probs, strict=True)
    ]
    return SimpleNamespace(index=index, token_ids=tuple(tokens), logprobs=places)


def test_vllm_outputs_become_padded_answers_in_the_order_of_their_index() -> None:
    first = SimpleNamespace(outputs=[completion(1, [7, 2], [-1.0, -0.5]), completion(0, [2], [-3])])
    second = SimpleNamespace(
        outputs=[completion(0, [5, 6, 7], [-1, -2, -3]), completion(1, [2], [0])]
    )
    found = read_answers([first, second], pad=0)
    assert found.ids.tolist() == [[2, 0, 0], [7, 2, 0], [5, 6, 7], [2, 0, 0]]
    assert found.log_probs.tolist() == [[-3, 0, 0], [-1, -0.5, 0], [-1, -2, -3], [0, 0, 0]]
    assert found.mask.sum(1).tolist() == [1, 2, 3, 1]


def test_a_question_carries_its_pictures_and_a_plain_one_none(prompts) -> None:
    asked = question(prompts[0], "<image>what is it?")
    assert asked["prompt"] == "<image>what is it?"
    assert [picture.size for picture in asked["multi_modal_data"]["image"]] == [(112, 112)]
    assert question(Prompt("why?"), "why?") == {"prompt": "why?"}


def test_vllm_that_is_not_installed_is_refused_with_the_cure(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"rollout_engine: 'vllm' needs vLLM.*mmrl\[vllm\]"):
        VllmEngine.start(
            "somewhere",
            random_policy("smolvlm").model,
            VllmConfig(),
            max_new_tokens=4,
            temperature=1.0,
            lora_rank=None,
        )


def test_a_rank_is_rounded_up_to_one_that_vllm_reserves() -> None:
    assert [engine_rank(rank) for rank in (1, 8, 9, 64)] == [8, 8, 16, 64]
    with pytest.raises(ConfigError, match=r"lora.rank: vLLM takes ranks up to 512"):
        engine_rank(513)


@dataclass
class LoadedTwice:
    """The part of `vllm.LLM` that takes weights: a function is run on the engine's own network."""

    module: torch.nn.Module
    forgotten: int = 0

    def apply_model(self, function) -> list:
        return [function(self)]

    def load_weights(self, weights) -> set[str]:
        self.module.load_state_dict(dict(weights), strict=False)
        return {name for name, _ in weights}

    def reset_prefix_cache(self) -> bool:
        self.forgotten += 1
        return True


def test_an_engine_takes_over_all_weights_and_forgets_its_prefixes() -> None:
    model, llm = random_policy("smolvlm").model, LoadedTwice(random_policy("smolvlm").module)
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.add_(0.25)
    engine = VllmEngine(llm, {}, pad=0)
    engine.push(model)
    folder = engine.folder
    assert folder.is_dir()
    del engine
    assert not folder.exists()
    for name, weight in model.module.state_dict().items():
        assert torch.equal(llm.module.state_dict()[name], weight), name
    assert llm.forgotten == 1


def test_adapters_in_the_vision_tower_are_refused() -> None:
    model = random_policy("smolvlm").model
    add_lora(model.module, LoraConfig(rank=2, alpha=4, targets=("q_proj",)), seed=0)
    with pytest.raises(ConfigError, match=r"rollout_engine: .* set freeze_vision: true"):
        VllmEngine(LoadedTwice(model.module), {}, pad=0).push(model)
