"""Choices of the vision-language pipelines: what learns, how it is replayed, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.data.prompts import load_prompts
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.loop import load_config
from mmrl.vlm_recipe import build_vlm_policy
from tests.tiny import shrunk_config

LORA = "lora={rank: 2, alpha: 4, targets: [q_proj, v_proj]}"


def policy_of(folder: Path, *changes: str) -> VlmPolicy:
    return build_vlm_policy(load_config(shrunk_config("med_r1", folder, *changes)))


def gradients(policy: VlmPolicy, prompts) -> dict[str, torch.Tensor]:
    rollout = policy.rollout(prompts, 4, [0, 1])
    log_probs = policy.evaluate(rollout)["token"].log_probs
    (rollout.weights["token"] * log_probs).sum().backward()
    named = policy.module.named_parameters()
    return {name: weight.grad for name, weight in named if weight.grad is not None}


def test_checkpointing_and_a_frozen_tower_leave_the_other_gradients(tmp_path: Path) -> None:
    """On the trained tiny model of the demo."""
    prompts = load_prompts(load_config(shrunk_config("med_r1", tmp_path)).prompts)[:2]
    whole = gradients(policy_of(tmp_path), prompts)
    changes = ("gradient_checkpointing=true", "freeze_vision=true")
    found = gradients(policy_of(tmp_path, *changes), prompts)
    assert found.keys() == {name for name in whole if ".visual." not in name} != whole.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("frozen", "inside"), [("true", False), ("false", True)])
def test_adapters_spare_a_frozen_tower(tmp_path: Path, frozen: str, inside: bool) -> None:
    """`proj` is a layer of the tower alone."""
    lora = "lora={rank: 2, alpha: 4, targets: [q_proj, proj]}"
    if not inside:
        with pytest.raises(ConfigError, match=r"lora.targets: 'proj' matches no linear layer"):
            policy_of(tmp_path, lora, f"freeze_vision={frozen}")
        policy = policy_of(tmp_path, LORA, f"freeze_vision={frozen}")
    else:
        policy = policy_of(tmp_path, lora, f"freeze_vision={frozen}")
    assert policy.model.vision_learns == inside


def test_four_bits_without_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^quantization: four-bit weights cannot learn: add a"):
        load_config(shrunk_config("med_r1", tmp_path, "quantization=4bit"))


def test_four_bits_and_vllm_are_refused_together(tmp_path: Path) -> None:
    changes = ("quantization=4bit", LORA, "rollout_engine=vllm")
    with pytest.raises(ConfigError, match=r"^rollout_engine: .* before they were quantized"):
        load_config(shrunk_config("med_r1", tmp_path, *changes))


def test_an_engine_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^rollout_engine: .*transformers, vllm"):
        load_config(shrunk_config("med_r1", tmp_path, "rollout_engine=sglang"))


@pytest.mark.parametrize("pipeline", ["med_r1", "hylar"])
def test_several_samples_of_a_prompt_need_a_temperature(tmp_path: Path, pipeline: str) -> None:
    several = "evaluate={prompts: held_out.jsonl, samples_per_prompt: 4}"
    with pytest.raises(
        ConfigError, match=r"^evaluate.samples_per_prompt: 4 samples .* set eval_temperature above"
    ):
        load_config(shrunk_config(pipeline, tmp_path, several, "eval_temperature=0"))
    config = load_config(shrunk_config(pipeline, tmp_path, several, "eval_temperature=0.8"))
    assert config.evaluate is not None and config.evaluate.samples_per_prompt == 4


@pytest.mark.parametrize(
    ("pipeline", "key"),
    [
        ("grpo", "clip_low"),
        ("med_r1", "clip"),
        ("gui_libra", "clip"),
        ("sophia_vl", "clip"),
        ("ssl", "clip"),
        ("hylar", "clip_low"),
        ("hylar", "latent_clip"),
    ],
)
def test_a_clip_of_1_or_more_would_let_a_ratio_fall_without_end(
    tmp_path: Path, pipeline: str, key: str
) -> None:
    """1 - clip is the ratio's lower end, and no ratio is below 0."""
    for value in ("1", "1.5", "0"):
        with pytest.raises(ConfigError, match=rf"^{key}: expected (less|greater) than [01], got"):
            load_config(shrunk_config(pipeline, tmp_path, f"{key}={value}"))
    load_config(shrunk_config(pipeline, tmp_path, f"{key}=0.9"))
