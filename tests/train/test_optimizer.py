"""Weights in bfloat16 learn as those in float32 do: float32 masters, gradients and averages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.train.checkpoint import load_checkpoint, newest_sound, save_checkpoint
from mmrl.train.loop import initial_state, load_config
from mmrl.train.optimizer import adamw, masters, moved_weights, set_masters
from mmrl.trust_region.weights import blend, take_snapshot, trainable
from tests.tiny import video_config, vlm_config
from tests.tiny_vlm import noise_prompts, random_policy

LR, STEPS = 1e-5, 50


def net(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(16, 16).to(dtype)


def train(module: nn.Linear, steps: int) -> torch.optim.AdamW:
    optimizer = adamw([(list(module.parameters()), LR)], weight_decay=0.0)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        mse_loss(module(x.to(module.weight.dtype)).float(), 2 * x).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return optimizer


def test_steps_smaller_than_a_bfloat16_ulp_add_up() -> None:
    exact, rounded, start = net(torch.float32), net(torch.bfloat16), net(torch.bfloat16)
    train(exact, STEPS)
    optimizer = train(rounded, STEPS)
    moved = exact.weight - net(torch.float32).weight
    found = masters(rounded, optimizer)["weight"] - start.weight.float()
    assert (found != 0).all()
    alike = torch.isclose(found, moved, atol=0.2 * LR * STEPS, rtol=0.2)
    assert alike.float().mean() > 0.99  # a gradient near 0 may round to the other sign
    assert torch.equal(rounded.weight, masters(rounded, optimizer)["weight"].bfloat16())


def test_gradients_add_up_in_float32() -> None:
    module = net(torch.bfloat16)
    optimizer = adamw([(list(module.parameters()), LR)])
    for part in (1.0, *[2**-9] * 8):
        (module.bias * part).sum().backward()
    assert module.bias.grad is None
    found = moved_weights(optimizer)[1].grad
    assert found is not None and torch.equal(found, torch.full((16,), 1 + 8 * 2**-9))


def test_float32_weights_are_their_own_masters() -> None:
    module = net(torch.float32)
    optimizer = adamw([(list(module.parameters()), LR)])
    assert masters(module, optimizer) == {}
    assert all(a is b for a, b in zip(moved_weights(optimizer), module.parameters(), strict=True))


def test_an_optimizer_that_is_gone_takes_no_gradients() -> None:
    module = net(torch.bfloat16)
    train(module, 1)
    optimizer = adamw([(list(module.parameters()), LR)])
    module.bias.sum().backward()
    found = moved_weights(optimizer)[1].grad
    assert found is not None and torch.equal(found, torch.ones(16))


def test_masters_follow_weights_that_somebody_else_wrote() -> None:
    module = net(torch.bfloat16)
    optimizer = train(module, 3)
    with torch.no_grad():
        module.weight.fill_(0.5)
    set_masters(module, optimizer)
    assert (masters(module, optimizer)["weight"] == 0.5).all()


def test_a_float32_average_of_bfloat16_weights_arrives() -> None:
    module = net(torch.bfloat16)
    average = take_snapshot(module, average=True)
    before = average["weight"].clone()
    with torch.no_grad():
        module.weight.add_(0.25)
    for _ in range(300):
        blend(average, module, 0.01)
    way = (average["weight"] - before) / (module.weight.float() - before)
    torch.testing.assert_close(way, torch.full_like(way, 1 - 0.99**300), atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ["video", "vlm"])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_bfloat16_run_continues_bit_for_bit(family: str, adapter: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tree = video_config(run) if family == "video" else vlm_config(run, tmp_path)
    tree |= {"precision": "bfloat16"}
    if adapter:
        names = ["to_q", "to_v"] if family == "video" else ["q_proj", "v_proj"]
        tree["lora"] = {"rank": 2, "alpha": 2, "targets": names}
    config = load_config(tree)
    recipe = config.build()
    module = recipe.policy.module
    state = initial_state(recipe, config.train)
    generator = torch.Generator().manual_seed(3)

    def update() -> None:
        for weight in moved_weights(state.optimizer):
            weight.grad = torch.randn(weight.shape, generator=generator)
        state.optimizer.step()
        state.step += 1

    update()
    path = save_checkpoint(tmp_path / "checkpoints", module, state, keep=2)
    noise = generator.get_state()
    update()
    expected = [weight.detach().clone() for weight in moved_weights(state.optimizer)]
    recipe = config.build()
    module, state = recipe.policy.module, initial_state(recipe, config.train)
    load_checkpoint(path, module, state)
    generator.set_state(noise)
    update()
    assert all(map(torch.equal, moved_weights(state.optimizer), expected))
    assert masters(module, state.optimizer)


def test_adapters_of_a_bfloat16_model_all_move(tmp_path: Path) -> None:
    policy = random_policy("qwen2_5_vl")
    policy.module.to(torch.bfloat16)
    add_lora(policy.module, LoraConfig(rank=4, alpha=4, targets=("q_proj", "v_proj")), seed=0)
    learning = list(trainable(policy.module).values())
    assert all(p.dtype == torch.bfloat16 for p in learning)
    before = [p.detach().float().clone() for p in learning]
    optimizer = adamw([(learning, LR)], weight_decay=0.0)
    inputs = policy.model.inputs(noise_prompts(tmp_path)[:1], "{question}")
    ids = torch.arange(12).view(2, 6) + 5
    for _ in range(10):
        (-policy.answer_log_probs(inputs, ids, 2).mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    pairs = zip(moved_weights(optimizer), before, strict=True)
    moved = torch.cat([(now != then).flatten() for now, then in pairs])
    assert moved.float().mean() > 0.95


def test_a_damaged_checkpoint_of_the_same_step_is_written_again(tmp_path: Path) -> None:
    config = load_config(video_config(tmp_path / "run"))
    recipe = config.build()
    state = initial_state(recipe, config.train)
    path = save_checkpoint(tmp_path, recipe.policy.module, state, keep=2)
    (path / "weights.safetensors").write_bytes(b"torn")
    assert newest_sound(tmp_path) is None
    assert save_checkpoint(tmp_path, recipe.policy.module, state, keep=2) == path
    assert newest_sound(tmp_path) == path
