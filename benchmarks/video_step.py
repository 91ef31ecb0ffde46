"""What one video update costs: `python -m benchmarks.video_step [--repeats N] [--videos N]`.

The trained steps of a rollout of assets/tiny-wan, guidance on, two updates, SAGE's two anchors.
Ours: a step at a time, both halves of the guidance in one batch, an anchor replayed once a rollout.
The other way: all steps in one graph, guidance as two passes, every anchor replayed at every
update. Both do the same mathematics; how far their weights end apart, in shares of the way they
moved, is printed beside.

Activation memory is the most bytes that autograd holds for the backward pass at one time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mmrl.advantages import group_normalized
from mmrl.config import apply_overrides, read_yaml
from mmrl.policies.video import VideoPolicy
from mmrl.policies.video_model import Conditioning, Latents
from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.accumulate import Replayed
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import optimize, weigh_globally
from mmrl.trust_region.weights import trainable

GUIDANCE, STEPS, GROUP, UPDATES = 3.0, 10, 4, 2


@dataclass
class Peak:
    """Bytes of tensors that autograd has saved and not yet freed."""

    now: int = 0
    most: int = 0


@contextmanager
def watch_saved() -> Iterator[Peak]:
    """Count every tensor that is saved for a backward pass, storages once."""
    peak, alive = Peak(), {}

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            count = alive.get(self.key, 0)
            if count == 0:
                peak.now += tensor.untyped_storage().nbytes()
                peak.most = max(peak.most, peak.now)
            alive[self.key] = count + 1

        def __del__(self) -> None:
            alive[self.key] -= 1
            if alive[self.key] == 0:
                peak.now -= self.tensor.untyped_storage().nbytes()

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        yield peak


class TwoPassGuidance(VideoPolicy):
    """The guidance as two forward passes."""

    def predict(self, x: Latents, timestep: float, conditioning: Conditioning) -> Latents:
        empty = self.model.encode([""]).repeat(len(x))
        without = self.model.predict(x, timestep, empty)
        given = self.model.predict(x, timestep, conditioning)
        return without + self.sampling.guidance * (given - without)


class NoMemory(Replayed):
    """Forgets what an anchor said."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, {} if name in ("latest", "anchors") else value)


def main() -> None:
    """Time both ways in turn and print one table a number of videos."""
    parser = argparse.ArgumentParser(description="Time one video update.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--videos", type=int, nargs="+", default=[8, 16, 32])
    arguments = parser.parse_args()
    print(
        f"{STEPS} steps, {STEPS - 1} trained, guidance {GUIDANCE}, {UPDATES} updates, two anchors"
    )
    print("videos   ours s  other s  ratio   ours MiB  other MiB  ratio   gradients differ by")
    for videos in arguments.videos:
        compare(videos, arguments.repeats)


def compare(videos: int, repeats: int) -> None:
    """One row of the table."""
    recipe, state, config = setup(videos)
    ranks = Ranks(Accelerator(cpu=True))
    rollout = weigh_globally(
        recipe.policy.rollout(state.stream.take(videos // GROUP), GROUP, range(videos // GROUP)),
        ranks,
    )
    advantages = group_normalized(torch.randn(videos // GROUP, GROUP)).flatten()
    start = {name: p.detach().clone() for name, p in trainable(recipe.policy.module).items()}

    def run(other: bool) -> Callable[[], dict[str, Tensor]]:
        def once() -> dict[str, Tensor]:
            restore(recipe, state, start, other)
            replayed = NoMemory() if other else Replayed()
            for _ in range(UPDATES):
                optimize(recipe, state, rollout, advantages, replayed, config, ranks)
            return {n: p.detach().clone() for n, p in trainable(recipe.policy.module).items()}

        return once

    ours, other = run(False), run(True)
    seconds = {False: [], True: []}
    for _ in range(repeats):
        for way, once in ((False, ours), (True, other)):
            clock = time.perf_counter()
            once()
            seconds[way].append(time.perf_counter() - clock)
    weights, peaks = {}, {}
    for way, once in ((False, ours), (True, other)):
        with watch_saved() as peak:
            weights[way] = once()
        peaks[way] = peak.most / 2**20
    moved = max((weights[False][n] - start[n]).abs().max() for n in start)
    gap = max((weights[False][n] - weights[True][n]).abs().max() for n in start) / moved
    a, b = (statistics.median(seconds[way]) for way in (False, True))
    print(
        f"{videos:6d} {a:8.2f} {b:8.2f} {b / a:6.2f} {peaks[False]:10.1f} {peaks[True]:10.1f} "
        f"{peaks[False] / peaks[True]:6.3f}   {gap:.1e}",
        flush=True,
    )


def setup(videos: int) -> tuple[Recipe, TrainState, TrainConfig]:
    """SAGE-GRPO on tiny-wan, all but the last step trained."""
    tree = read_yaml(Path("configs/sage_grpo/tiny.yaml"))
    sampling = (
        f"{{transition: sage, num_steps: {STEPS}, eta: 0.5, shift: 3.0, guidance: {GUIDANCE}}}"
    )
    changes = [f"sampling={sampling}", f"group_size={GROUP}", f"train.rows={videos}"]
    config = load_config(
        apply_overrides(tree, [*changes, "train.optimizer.lr=1e-5", f"train.steps={videos}"])
    )
    recipe = config.build()
    return recipe, initial_state(recipe, config.train), config.train


def restore(recipe: Recipe, state: TrainState, start: dict[str, Tensor], other: bool) -> None:
    """Back to the first weights, fresh anchors and moments; choose the way."""
    policy = recipe.policy
    assert isinstance(policy, VideoPolicy)
    with torch.no_grad():
        for name, p in trainable(policy.module).items():
            p.copy_(start[name])
        for anchor in state.anchors.values():
            for name, kept in anchor.weights.items():
                kept.copy_(start[name])
            anchor.moved_at = 0
    state.optimizer.state.clear()
    state.updates = 0
    state.controllers.clear()
    policy.decision_chunk = None if other else 1
    policy.__class__ = TwoPassGuidance if other else VideoPolicy


if __name__ == "__main__":
    main()
