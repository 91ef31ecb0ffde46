"""What the benchmarks of real sizes share: a stopwatch of phases, rates of the device, its name."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.types import Metrics
from mmrl.versions import versions

NO_DEVICE = "needs a CUDA device; --tiny runs the same code on tiny shapes on a CPU"
Size = TypeVar("Size")
Found = TypeVar("Found")


@dataclass
class Phase:
    """Seconds of one phase, and the most bytes of the device's memory in it (None on a CPU)."""

    seconds: float
    peak: int | None


Lap = dict[str, Phase]


@dataclass
class Stopwatch:
    """Phases that follow each other, one at a time; a lap is one training step."""

    device: torch.device
    laps: list[Lap] = field(default_factory=list)
    running: str | None = None
    _lap: Lap = field(default_factory=dict)
    _began: float = 0.0

    def switch(self, name: str | None) -> None:
        """End the running phase, and begin another or none."""
        if name == self.running:
            return
        self._wait()
        if self.running is not None:
            spent = Phase(time.perf_counter() - self._began, self._peak())
            self._lap[self.running] = joined(self._lap.get(self.running), spent)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.running, self._began = name, time.perf_counter()

    def end_lap(self) -> None:
        """Put the phases so far away; the next lap begins."""
        self.switch(None)
        if self._lap:
            self.laps.append(self._lap)
        self._lap = {}

    def follow(
        self, owner: object, method: str, *, during: str, after: str, begins_lap: bool = False
    ) -> None:
        """Switch phases at the begin and the end of every call of `owner.method`."""
        call = getattr(owner, method)

        def followed(*args, **more):
            if begins_lap:
                self.end_lap()
            self.switch(during)
            found = call(*args, **more)
            self.switch(after)
            return found

        setattr(owner, method, followed)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _peak(self) -> int | None:
        cuda = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) if cuda else None


def joined(before: Phase | None, more: Phase) -> Phase:
    """A phase that went on: seconds add up, the higher peak counts."""
    if before is None:
        return more
    peaks = [peak for peak in (before.peak, more.peak) if peak is not None]
    return Phase(before.seconds + more.seconds, max(peaks, default=None))


def typical(laps: Sequence[Lap]) -> Lap:
    """Every phase with its median seconds and its highest peak over the laps."""
    found = {}
    for name in laps[0]:
        peaks = [lap[name].peak for lap in laps]
        known = [peak for peak in peaks if peak is not None]
        seconds = median(lap[name].seconds for lap in laps)
        found[name] = Phase(seconds, max(known, default=None))
    return found


def timed_steps(
    recipe: Recipe,
    state: TrainState,
    config: TrainConfig,
    ranks: Ranks,
    watch: Stopwatch,
    repeats: int,
) -> tuple[Lap, list[Metrics]]:
    """Training steps after one to warm up: the typical lap, and the metrics of all steps.

    `rollout` is what the policy samples, `update` all from its first replay to the optimizer.
    """
    watch.follow(recipe.policy, "rollout", during="rollout", after="reward")
    watch.follow(recipe.policy, "evaluate", during="update", after="update")
    told = []
    for _ in range(repeats + 1):
        told.append(train_step(recipe, state, config, ranks))
        watch.end_lap()
    return typical(watch.laps[1:]), told


def first_that_fits(
    sizes: Sequence[Size], run: Callable[[Size], Found]
) -> Iterator[tuple[Size, Found | None]]:
    """Sizes down to the first that does not run out of the device's memory; None for the others."""
    for size in sizes:
        found = or_none(lambda size=size: run(size))
        yield size, found
        if found is not None:
            return


def or_none(run: Callable[[], Found]) -> Found | None:
    """What `run` returns; None where the device's memory is too small."""
    found = None
    with suppress(torch.OutOfMemoryError):
        found = run()
    gc.collect()
    torch.cuda.empty_cache()
    return found


def device_here(*, tiny: bool) -> torch.device:
    """The CUDA device; with `tiny` a CPU will do, without it SystemExit says what is missing."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if not tiny:
        raise SystemExit(NO_DEVICE)
    return torch.device("cpu")


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What the numbers were measured on and with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    packages = {key: versions()[key] for key in ("torch", "diffusers", "transformers")}
    return {"device": name, "dtype": str(dtype).removeprefix("torch."), **packages}


def told(found: Mapping[str, str]) -> str:
    """`machine` as one line."""
    names = [f"{key} {value}" for key, value in found.items() if key not in ("device", "dtype")]
    return ", ".join([found["device"], found["dtype"], *names])


def matrix_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second of a product of two square matrices: 2 n^3 each."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: left @ right, device)


def attention_rate(
    heads: int, tokens: int, width: int, dtype: torch.dtype, device: torch.device, *, backward: bool
) -> float:
    """FLOP a second of full self-attention of one sample, `width` elements a head.

    4 T^2 d forward, d over all heads, and 8 T^2 d backward.
    """
    shape = (1, heads, tokens, width)
    query, key, value = (
        torch.randn(shape, device=device, dtype=dtype, requires_grad=backward) for _ in range(3)
    )

    def attend() -> Float[Tensor, "1 heads tokens width"]:
        return scaled_dot_product_attention(query, key, value)

    def both() -> None:
        attend().sum().backward()

    flops = (12 if backward else 4) * tokens**2 * heads * width
    return flops / seconds_of(both if backward else attend, device)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Mean seconds of `work` in one go of `repeats`, after three to warm up."""
    for _ in range(3):
        work()
    watch = Stopwatch(device)
    watch.switch("work")
    for _ in range(repeats):
        work()
    watch.end_lap()
    return watch.laps[0]["work"].seconds / repeats


def gib(count: float | None) -> str:
    """Bytes for a table."""
    return "n/a" if count is None else f"{count / 2**30:.1f}"
