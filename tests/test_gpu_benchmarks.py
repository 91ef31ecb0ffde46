"""The benchmarks of real sizes on tiny shapes: every phase measured, FLOPs as counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_video, gpu_video_model, gpu_vlm, gpu_vlm_model
from benchmarks.flops import WanShape, backward_flops, forward_flops, remade_flops
from benchmarks.gpu import Phase, Stopwatch, device_here, first_that_fits, joined, typical
from mmrl.policies.lora import LoraConfig, add_lora
from mmrl.policies.video import VideoPolicy
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.accumulate import Replayed
from mmrl.train.loop import initial_state
from mmrl.train.ranks import Ranks
from mmrl.train.step import optimize
from pipelines.tiny.qwen2_5_vl import build_processor

CPU = torch.device("cpu")
LORA = LoraConfig(rank=4, alpha=8, targets=("to_q", "to_k", "to_v", "to_out.0"))


def counted(work: Callable[[], object]) -> int:
    """FLOPs as PyTorch counts them; the fused attention of a CPU is none of those it knows."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def tiny_wan():
    """Three layers with adapters over 48 tokens, and a call of it."""
    from diffusers import WanTransformer3DModel

    network = WanTransformer3DModel(
        num_layers=3,
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=160,
        rope_max_seq_len=32,
    )
    add_lora(network, LORA, seed=0)
    latents, text = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 6, 24)
    time = torch.full((1,), 500.0)
    shape = WanShape.of(network.config, tokens=48, texts=6, rank=LORA.rank)
    return network, lambda: network(latents, time, text, return_dict=False)[0], shape


def test_flops_of_a_forward_and_a_backward_pass_are_what_pytorch_counts() -> None:
    _, call, shape = tiny_wan()
    with torch.no_grad():
        assert counted(call) == forward_flops(shape).total
    both = forward_flops(shape).total + backward_flops(shape).total
    assert counted(lambda: call().sum().backward()) == both


def test_checkpointing_runs_the_layers_again() -> None:
    network, call, shape = tiny_wan()
    network.enable_gradient_checkpointing()
    whole = forward_flops(shape) + backward_flops(shape) + remade_flops(shape)
    assert counted(lambda: call().sum().backward()) == whole.total


def test_the_full_shapes_are_those_of_the_released_models() -> None:
    """Parameters of Wan2.1-T2V-1.3B and Qwen2.5-VL-3B; FLOPs of 81 frames of 480 x 832."""
    from diffusers import WanTransformer3DModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = build_processor(["a question"]).tokenizer
    with torch.device("meta"):
        wan = WanTransformer3DModel(**gpu_video_model.FULL.transformer)
        qwen = Qwen2_5_VLForConditionalGeneration(
            gpu_vlm_model.network_config(gpu_vlm_model.FULL, tokenizer)
        )
        latents, text = torch.empty(1, 16, 21, 60, 104), torch.empty(1, 512, 4096)
        time = torch.empty(1)
    assert sum(weight.numel() for weight in wan.parameters()) == 1_418_996_800
    assert sum(weight.numel() for weight in qwen.parameters()) == 3_754_622_976
    shape = WanShape.of(wan.config, tokens=32_760, texts=512, rank=0)
    with torch.no_grad():
        found = counted(lambda: wan(latents, time, text, return_dict=False))
    assert found == forward_flops(shape).total


def test_an_update_costs_what_the_table_divides_by(tmp_path: Path) -> None:
    """Every trained step: a pass with gradients, run again, and one for each of two anchors."""
    case = gpu_video_model.TINY
    gpu_video_model.write_model(tmp_path / "model", case, CPU)
    (tmp_path / "prompts.jsonl").write_text('{"text": "a red three"}\n', encoding="utf-8")
    config = gpu_video_model.config_of(case, tmp_path, case.frames[0])
    recipe = config.build()
    policy = recipe.policy
    assert isinstance(policy, VideoPolicy)
    state, ranks = initial_state(recipe, config.train), Ranks(Accelerator(cpu=True))
    rollout = policy.rollout(recipe.prompts, config.group_size, [0])
    advantages, replayed = torch.tensor([1.0, -1.0]), Replayed()

    def update() -> None:
        optimize(recipe, state, rollout, advantages, replayed, config.train, ranks)

    shape = gpu_video.shape_of(policy, config)
    model, again = gpu_video.work(shape, policy, config)["update"]
    assert counted(update) == pytest.approx((model + again).total, rel=0.02)


def test_the_video_benchmark_measures_every_phase() -> None:
    on, found = gpu_video.run(gpu_video_model.TINY, CPU)
    assert on["device"] == "CPU" and on["dtype"] == "bfloat16" and on["torch"] == torch.__version__
    first = found["first_step"]
    assert first["ratio/deviation"] == first["rollout/log_prob_gap"] == 0
    assert first["grad_norm"] > 0
    assert list(found["phases"]) == ["rollout", "decode", "reward", "update"]
    assert all(0 < phase["seconds"] < math.inf for phase in found["phases"].values())
    assert all(phase["estimated_bytes"] > 0 for phase in found["phases"].values())
    assert all(0 < rate < math.inf for rate in found["rates"].values())
    lines = gpu_video.table([on, {"frames": 9, "out_of_memory": "update"}, found]).splitlines()
    assert "9 frames ran out of memory in update" in lines[0]
    assert [line.count("|") for line in lines[2:]] == [9] * 6
    update = found["phases"]["update"]
    rate = sum(update["model_flops"].values()) / update["seconds"] / found["rates"]["matrix"]
    assert f"| {rate:.1%} |" in lines[-1]


def test_the_vlm_benchmark_measures_the_same_step_both_ways() -> None:
    on, *ways = gpu_vlm.run(gpu_vlm_model.TINY, CPU, ("mmrl", "plain"))
    for found in ways:
        assert list(found["phases"]) == ["rollout", "reward", "update"]
        assert all(0 < phase["seconds"] < math.inf for phase in found["phases"].values())
        assert all(0 < speed < math.inf for speed in found["tokens_per_second"].values())
        assert found["image_tokens"] == 16
        assert found["first_step"]["ratio/deviation"] == 0
    shared, plain = (found["first_step"] for found in ways)
    assert plain["reward/mean"] == shared["reward/mean"]
    assert plain["grad_norm"] == pytest.approx(shared["grad_norm"], rel=0.01)
    lines = gpu_vlm.table([on, *ways, {"way": "trl", "out_of_memory": "update"}]).splitlines()
    assert [line.count("|") for line in lines[2:]] == [8] * 5
    assert "1.00x" in lines[4] and "ran out of memory in update" in lines[6]


def test_no_answer_of_the_vlm_benchmark_ends_early(tmp_path: Path) -> None:
    case = gpu_vlm_model.TINY
    gpu_vlm_model.write_model(tmp_path / "model", case, CPU)
    gpu_vlm.write_prompt(tmp_path, case)
    recipe = gpu_vlm.config_of(case, tmp_path, ["max_new_tokens=200", "group_size=4"]).build()
    assert isinstance(recipe.policy, VlmPolicy)
    rollout = recipe.policy.rollout(recipe.prompts, 4, [0])
    assert rollout.behavior["token"].log_probs.shape == (4, 200)
    assert (rollout.weights["token"] > 0).all()


def test_a_size_that_is_too_large_leads_to_the_next() -> None:
    def run(frames: int) -> str:
        if frames > 40:
            raise torch.OutOfMemoryError
        return f"{frames} fit"

    assert list(first_that_fits((81, 49, 33, 17), run)) == [(81, None), (49, None), (33, "33 fit")]


def test_phases_add_their_seconds_and_keep_the_higher_peak() -> None:
    assert joined(Phase(1.0, 5), Phase(2.0, 3)) == Phase(3.0, 5)
    assert joined(Phase(1.0, None), Phase(2.0, None)) == Phase(3.0, None)
    laps = [{"update": Phase(seconds, peak)} for seconds, peak in ((3.0, 7), (1.0, 9), (2.0, 8))]
    assert typical(laps) == {"update": Phase(2.0, 9)}


def test_a_phase_inside_another_interrupts_it() -> None:
    """Decoding, inside a rollout, is a phase of its own; the rollout goes on after it."""

    class Policy:
        def rollout(self) -> None:
            self.decode()

        def decode(self) -> None:
            order.append(watch.running)

    watch, policy, order = Stopwatch(CPU), Policy(), []
    watch.follow(policy, "rollout", during="rollout", after="reward")
    watch.follow(policy, "decode", during="decode", after="rollout")
    policy.rollout()
    order.append(watch.running)
    watch.end_lap()
    assert order == ["decode", "reward"]
    assert list(watch.laps[0]) == ["rollout", "decode", "reward"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line_says_so() -> None:
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        device_here(tiny=False)
    assert device_here(tiny=True) == CPU
