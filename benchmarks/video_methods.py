"""Reward against samples of eight methods: `python -m benchmarks.video_methods FOLDER`.

Every method aligns assets/tiny-wan with the same rewards, prompts, videos a step, optimizer steps
and learning rate, three seeds each; held-out prompts are scored before and after. Writes
FOLDER/results.json and the curves, and prints the table of docs/performance.md; `mmrl report
FOLDER` makes a page of all runs. Runs that are there already are kept, so a stopped benchmark goes
on.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, pstdev

from benchmarks.figures import save_lines
from benchmarks.trainings import train_once
from mmrl.report.plots import Series

SAGE = ["sampling.trained_steps=random", "sampling.trained_count=4"]
METHODS = {
    "sage_fixed": ("sage_grpo", SAGE),
    "sage_released": (
        "sage_grpo",
        [
            "sampling={transition: sage, num_steps: 10, eta: 0.5, shift: 3.0, variant: released, "
            "last_step: trained}",
            "trust_region={periodic: {coefficient: 1.0e-5, refresh_every: 10}, "
            "stepwise: {coefficient: 1.0e-6}}",
        ],
    ),
    "flow_grpo": ("flow_grpo", []),
    "dance_grpo": ("dance_grpo", []),
    "cps": ("flow_cps", []),
    "bridge": ("flow_cps", ["sampling.transition=bridge"]),
    "prdp": ("prdp", []),
    "nft": ("diffusion_nft", ["train.updates_per_rollout=2"]),
}
METRICS = ("reward", "pick_score", "smoothness")
SAMPLES = 64
"""Videos of one step."""
FIGURES = {
    "video_methods_steps": (
        "sage_fixed",
        "sage_released",
        "flow_grpo",
        "dance_grpo",
        "cps",
        "bridge",
    ),
    "video_methods_objectives": ("flow_grpo", "prdp", "nft"),
}
"""Six ways to take a stochastic step with a clipped policy gradient; three objectives."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description="Compare video methods at one budget.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in METHODS]
    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda job: run(arguments.folder, arguments.steps, *job), jobs))
    results = {name: collect(arguments.folder, name, arguments.seeds) for name in METHODS}
    (arguments.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print_table(results)
    for figure, names in FIGURES.items():
        series = [curve(arguments.folder, name, arguments.seeds) for name in names]
        path = arguments.folder / f"{figure}.svg"
        save_lines(path, "reward of the videos trained on, mean of the seeds", series, "videos")


def curve(folder: Path, name: str, seeds: int) -> Series:
    """Mean and standard deviation over seeds of a step's reward, by videos sampled before it."""
    rewards = []
    for seed in range(seeds):
        rows = (folder / f"{name}-{seed}" / "metrics.jsonl").read_text("utf-8").splitlines()
        rewards.append([json.loads(row)["reward/mean"] for row in rows])
    steps = list(zip(*rewards, strict=True))
    places = [SAMPLES * step for step in range(len(steps))]
    return Series(name, places, [mean(step) for step in steps], [pstdev(step) for step in steps])


def run(folder: Path, steps: int, name: str, seed: int) -> None:
    """One training of one method."""
    pipeline, changes = METHODS[name]
    budget = ["train.prompts_per_step=8", "group_size=8", "train.rows=64", f"train.steps={steps}"]
    budget += ["train.optimizer.lr=2.0e-4", f"train.seed={seed}"]
    command = ["train", f"configs/{pipeline}/tiny.yaml", *budget, *changes]
    train_once(folder / f"{name}-{seed}", command)


def collect(folder: Path, name: str, seeds: int) -> list[dict]:
    """Held-out means before and after, and seconds of training, a seed each."""
    found = []
    for seed in range(seeds):
        run_folder = folder / f"{name}-{seed}"
        tree = json.loads((run_folder / "evaluation.json").read_text("utf-8"))
        rows = (run_folder / "metrics.jsonl").read_text("utf-8").splitlines()
        times = ("time/rollout", "time/reward", "time/update")
        found.append(
            {
                metric: [tree[when][metric]["mean"] for when in ("before", "after")]
                for metric in METRICS
            }
            | {"seconds": sum(json.loads(row)[key] for row in rows for key in times)}
        )
    return found


def print_table(results: dict[str, list[dict]]) -> None:
    """Means over seeds, with the smallest and largest seed of the reward."""
    print("| method | reward after | seeds | PickScore | smoothness | seconds |")
    print("|---|---|---|---|---|---|")
    first = next(iter(results.values()))[0]
    before = " | ".join(f"{first[metric][0]:.3f}" for metric in METRICS[1:])
    print(f"| before | {first['reward'][0]:.3f} | | {before} | |")
    ranked = sorted(results.items(), key=lambda item: -mean(one["reward"][1] for one in item[1]))
    for name, seeds in ranked:
        after = {metric: [one[metric][1] for one in seeds] for metric in METRICS}
        reward = after["reward"]
        print(
            f"| {name} | **{mean(reward):.3f}** | {min(reward):.3f} to {max(reward):.3f} "
            f"| {mean(after['pick_score']):.3f} | {mean(after['smoothness']):.3f} "
            f"| {mean(one['seconds'] for one in seeds):.0f} |"
        )


if __name__ == "__main__":
    main()
