"""How much a shared prefix saves: `python -m benchmarks.shared_prefix [--trl] [--repeats N]`.

One picture of 256 image tokens, G = 8 answers of 64 tokens, a Qwen2-VL of 37 M parameters with
random weights. Both ways do the same work on the same answers: the shared prefix runs picture and
prompt once, the plain way runs them for every answer. `--trl` also times a whole step of TRL's
GRPOTrainer on the same model and prompt (`pip install trl`). Times are CPU seconds of all threads,
so that a busy machine does not change them; on a GPU they are wall-clock seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.vlm_peer import build, clock, trl_seconds
from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.vlm import TokenReplay, VlmPolicy
from mmrl.types import ActionStats, Prompt, Rollout

GROUP, NEW_TOKENS, SIDE = 8, 64, 448


def main() -> None:
    """Time every part and print one table."""
    parser = argparse.ArgumentParser(description="Time the shared prefix.")
    parser.add_argument("--trl", action="store_true", help="also time TRL's GRPOTrainer")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, prompt = build(Path(folder), SIDE)
        policy = VlmPolicy(model, max_new_tokens=NEW_TOKENS, rows=GROUP)
        report(policy, prompt, arguments.repeats)
        if arguments.trl:
            times = trl_seconds(model, prompt, GROUP, NEW_TOKENS, arguments.repeats, Path(folder))
            print(f"TRL GRPOTrainer, whole step {statistics.median(times):6.2f} s")


def report(policy: VlmPolicy, prompt: Prompt, repeats: int) -> None:
    """Replay and whole step, the ways in turn, so that a busy machine slows them alike."""
    rollout = policy.rollout([prompt], GROUP, [0])
    assert isinstance(rollout.replay, TokenReplay)
    inputs = rollout.replay.prompts[0]
    images = int((inputs.types == 1).sum())
    texts, new = len(inputs.ids) - images, rollout.replay.ids.shape[1]
    weights = sum(weight.numel() for weight in policy.module.parameters())
    print(
        f"{weights / 1e6:.0f} M parameters, {images} image + {texts} text tokens, {new} new, "
        f"G = {GROUP}, {torch.get_num_threads()} threads"
    )
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=1e-6)

    def shared_replay() -> None:
        backward(policy.evaluate(rollout)["token"].log_probs, rollout)

    def plain_replay() -> None:
        backward(plain_log_probs(policy, rollout), rollout)

    def shared_step() -> None:
        found = policy.rollout([prompt], GROUP, [1])
        backward(policy.evaluate(found)["token"].log_probs, found)
        optimizer.step()

    def plain_step() -> None:
        found = policy.rollout([prompt] * GROUP, 1, list(range(GROUP)))
        backward(plain_log_probs(policy, found), found)
        optimizer.step()

    packed = replace(policy, gradient_checkpointing=True)

    def packed_replay() -> None:
        backward(packed.evaluate(rollout)["token"].log_probs, rollout)

    for name, ways in (
        ("replay", (shared_replay, plain_replay)),
        ("whole step", (shared_step, plain_step)),
    ):
        shared, plain = measure(ways, repeats)
        print(f"{name:12s} shared {shared:6.2f} s   plain {plain:6.2f} s   {plain / shared:4.1f} x")
    shared, again = measure((shared_replay, packed_replay), repeats)
    print(
        f"packed row, layers run twice: {again:.2f} s where the shared prefix takes {shared:.2f} s"
    )
    ways = (policy, packed)
    with_cache, without = (kept(lambda way=way: way.evaluate(rollout), policy) for way in ways)
    plain = kept(lambda: plain_log_probs(policy, rollout), policy)
    print(
        f"kept for backward: plain {plain / 1e6:.0f} MB, shared prefix {with_cache / 1e6:.0f} MB, "
        f"packed row {without / 1e6:.0f} MB"
    )


def kept(forward: Callable[[], object], policy: VlmPolicy) -> int:
    """Bytes, weights left out, that a forward pass keeps for the backward pass."""
    sizes: dict[int, int] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        held = forward()
    weights = {weight.untyped_storage().data_ptr() for weight in policy.module.parameters()}
    assert held is not None
    return sum(size for place, size in sizes.items() if place not in weights)


def plain_log_probs(policy: VlmPolicy, rollout: Rollout) -> torch.Tensor:
    """Every answer with its own copy of picture and prompt through the model's own forward."""
    replay = rollout.replay
    assert isinstance(replay, TokenReplay)
    inputs, rows = replay.prompts[0], len(replay.ids)
    assert inputs.images is not None
    ids = torch.cat([inputs.ids.expand(rows, -1), replay.ids], dim=1)
    types = torch.cat([inputs.types.expand(rows, -1), torch.zeros_like(replay.ids)], dim=1)
    logits = policy.module(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=types,
        **{name: values.repeat(rows, 1) for name, values in inputs.images.items()},
        use_cache=False,
        logits_to_keep=replay.ids.shape[1] + 1,
    ).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, replay.ids[..., None])[..., 0]


def backward(log_probs: torch.Tensor, rollout: Rollout) -> None:
    """The gradient of GRPO's loss for made-up rewards."""
    rewards = torch.arange(GROUP, dtype=torch.float32)[None]
    loss, _ = Grpo({"token": Clip(0.2, 0.2)})(
        {"token": ActionStats(log_probs)}, {}, rollout, group_normalized(rewards).flatten()
    )
    loss.backward()


def measure(ways: tuple[Callable[[], None], ...], repeats: int) -> list[float]:
    """Median seconds of each way after one warm-up, taken in turn."""
    found: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for times, way in zip(found, ways, strict=True):
            began = clock()
            way()
            if repeat:
                times.append(clock() - began)
    return [statistics.median(times) for times in found]


if __name__ == "__main__":
    main()
