"""A training whose reward fails in every way: `python -m benchmarks.fault_injection`.

Flow-GRPO on a toy video model learns brightness from `mmrl serve`. Between the two stands a proxy
that spoils one call in five (no answer in time, an error, NaN, two scores for one sample, HTTP
500), and the server is killed and started again in the middle. Writes docs/figures/faults.svg.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.chaos import proxy
from benchmarks.figures import save_lines
from benchmarks.serving import Service, free_port, running, start
from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.recipe import OptimizerConfig, Recipe, TrainConfig
from mmrl.report.plots import Series
from mmrl.reward import RewardTable
from mmrl.train.loop import initial_state
from mmrl.train.ranks import Ranks
from mmrl.train.step import train_step
from mmrl.trust_region.schedule import TrustRegion
from mmrl.types import Metrics
from tests.toy_video import PROMPTS, toy_policy

GROUP, STEPS, LAST = 8, 60, 10
SCORER = "def brightness(sample):\n    return sample.video.double().mean()\n"
POLICY = {
    "timeout_s": 3.0,
    "retries": 2,
    "backoff_s": 0.05,
    "breaker_after": 20,
    "breaker_rest_s": 10.0,
    "budget": 1.0,
}


@dataclass
class Curve:
    """What one training saw: the true reward of every step, scores as given, and the counts."""

    true: list[float] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)
    truth: list[Tensor] = field(default_factory=list)
    steps: list[Metrics] = field(default_factory=list)

    def total(self, what: str) -> float:
        """Sum of one count over all steps."""
        return sum(step.get(f"reward/judge/{what}", 0.0) for step in self.steps)

    @property
    def end(self) -> float:
        """Mean true reward of the last steps."""
        return statistics.fmean(self.true[-LAST:])


def train(
    judge: Mapping[str, Any], seed: int = 0, steps: int = STEPS, *, zero: bool = False, on_step=None
) -> Curve:
    """Train on `judge` and watch the true brightness beside it; `zero` scores failures 0."""
    here = Path(tempfile.mkdtemp()) / "truth.py"
    here.write_text(SCORER)
    curve = Curve()

    def combine(scores: Mapping[str, Tensor], step: int) -> Tensor:
        curve.given.append(scores["judge"])
        curve.truth.append(scores["truth"])
        curve.true.append(scores["truth"].mean().item())
        return scores["judge"].nan_to_num(0.0) if zero else scores["judge"]

    truth = {"path": f"{here}:brightness", "weight": 0.0}
    recipe = Recipe(
        policy=toy_policy(seed=seed),
        prompts=PROMPTS,
        group_size=GROUP,
        rewards=RewardTable.parse({"judge": dict(judge), "truth": truth}),
        combine=combine,
        advantage=group_normalized,
        objective=Grpo({"denoise": Clip(0.2, 0.2)}),
        trust_region=TrustRegion(),
    )
    config = TrainConfig(
        steps=steps,
        prompts_per_step=2,
        rows=2 * GROUP,
        optimizer=OptimizerConfig(lr=0.01, max_grad_norm=10.0),
        seed=seed,
    )
    state, ranks = initial_state(recipe, config), Ranks(Accelerator(cpu=True))
    while state.step < steps:
        curve.steps.append(train_step(recipe, state, config, ranks))
        if on_step is not None:
            on_step(state.step)
    return curve


def remote(url: str, **faults: Any) -> dict[str, Any]:
    """The judge behind a URL, under the policy of this script."""
    policy = {**POLICY, **faults}
    return {
        "reward": "remote",
        "scorer": "brightness",
        "url": url,
        "encoding": "float32",
        "faults": policy,
    }


def service_config(folder: Path, port: int = 0) -> dict[str, Any]:
    """One scorer, brightness."""
    file = folder / "scorer.py"
    file.write_text(SCORER)
    return {"port": port, "scorers": {"brightness": {"path": f"{file}:brightness"}}}


@dataclass
class Outage:
    """Kills the service after a step, and starts it again beside the training."""

    config: dict[str, Any]
    folder: Path
    service: Service
    at_step: int
    starter: threading.Thread | None = None

    def __call__(self, step: int) -> None:
        if step == self.at_step:
            self.service.process.kill()
            self.service.process.wait()
            self.starter = threading.Thread(target=self._start)
            self.starter.start()

    def _start(self) -> None:
        self.service = start(self.config, self.folder)

    def end(self) -> None:
        """Stop what runs."""
        if self.starter is not None:
            self.starter.join()
        self.service.process.terminate()
        self.service.process.wait(timeout=30)


def train_through_an_outage(folder: Path, seed: int, steps: int, kill_at: int, rate: float):
    """The curve and the proxy's counts of a run with faults and a killed server."""
    config = service_config(folder, free_port())
    outage = Outage(config, folder, start(config, folder), kill_at)
    try:
        with proxy(outage.service.url, rate, seed) as (chaos, url):
            return train(remote(url), seed, steps, on_step=outage), chaos.counts
    finally:
        outage.end()


def train_behind_faults(service: Service, seed: int, options: Mapping[str, Any], zero: bool):
    """One run whose calls are spoiled at a rate of 0.2."""
    with proxy(service.url, 0.2, seed) as (_, url):
        return train(remote(url, **options), seed, zero=zero)


def main() -> None:
    """Train every way with three seeds side by side (they mostly wait), print a table, draw."""
    seeds = (0, 1, 2)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(6) as pool:
        folder = Path(name)
        with running(service_config(folder), folder) as service:
            ways: dict[str, Callable[[int], Curve]] = {
                "no faults": lambda seed: train(remote(service.url, timeout_s=60), seed),
                "1 call in 5 fails, 2 retries": lambda seed: train_behind_faults(
                    service, seed, {}, False
                ),
                "same, no retry: NaN": lambda seed: train_behind_faults(
                    service, seed, {"retries": 0}, False
                ),
                "same, no retry: scored 0": lambda seed: train_behind_faults(
                    service, seed, {"retries": 0}, True
                ),
                "2 retries, server killed at step 20": lambda seed: train_through_an_outage(
                    Path(tempfile.mkdtemp(dir=folder)), seed, STEPS, 20, 0.2
                )[0],
            }
            begun = {
                label: [pool.submit(way, seed) for seed in seeds] for label, way in ways.items()
            }
            curves = {label: [run.result() for run in runs] for label, runs in begun.items()}
    print(table(curves))
    draw(curves)


def table(curves: Mapping[str, list[Curve]]) -> str:
    """Final true reward and counts, as Markdown."""
    rows = [
        "| run | final reward, 3 seeds | samples without a score | retries |",
        "|---|---|---|---|",
    ]
    for label, found in curves.items():
        ends = [curve.end for curve in found]
        missing = statistics.fmean(curve.total("missing") for curve in found)
        retries = statistics.fmean(curve.total("retries") for curve in found)
        samples = STEPS * 2 * GROUP
        told = f"{statistics.fmean(ends):.3f} ± {statistics.stdev(ends):.3f}"
        rows.append(f"| {label} | {told} | {missing / samples:.1%} | {retries:.0f} |")
    return "\n".join(rows)


def draw(curves: Mapping[str, list[Curve]]) -> None:
    """Mean over seeds of the true reward."""
    series = []
    for label, found in curves.items():
        columns = list(zip(*(curve.true for curve in found), strict=True))
        means = [statistics.fmean(column) for column in columns]
        steps = [float(step + 1) for step in range(len(means))]
        series.append(Series(label, steps, means, [statistics.stdev(c) for c in columns]))
    title = "True reward while the scorer fails"
    save_lines(Path("docs/figures/faults.svg"), title, series)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
