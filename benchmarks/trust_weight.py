"""Does trust help against a judge that likes length? `python -m benchmarks.trust_weight FOLDER`.

configs/sophia_vl/tiny.yaml with gamma as in the paper and with gamma = 1, at the weight of that
file and at the paper's weight of the thinking reward, three seeds each. Writes FOLDER/results.json
and prints the table of docs/methods/sophia_vl.md. Runs that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from benchmarks.trainings import train_once

CONFIG = "configs/sophia_vl/tiny.yaml"
WEIGHTS = (1.5, 0.3)
TRUSTS = ("paper", "plain")
THINKING = "thinking_reward"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description="Trust-GRPO with and without its trust weight.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    arms = [(weight, trust) for weight in WEIGHTS for trust in TRUSTS]
    jobs = [(*arm, seed) for seed in range(arguments.seeds) for arm in arms]
    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda job: run(arguments.folder, *job), jobs))
    results = {
        f"{weight} {trust}": [
            collect(arguments.folder / name_of(weight, trust, seed))
            for seed in range(arguments.seeds)
        ]
        for weight, trust in arms
    }
    (arguments.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print_table(results)


def name_of(weight: float, trust: str, seed: int) -> str:
    """Folder of one run."""
    return f"{trust}-{weight}-{seed}"


def run(folder: Path, weight: float, trust: str, seed: int) -> None:
    """One training of one arm."""
    command = ["train", CONFIG, f"trust={trust}", f"train.seed={seed}"]
    command.append(f"rewards.{THINKING}.weight={weight}")
    train_once(folder / name_of(weight, trust, seed), command)


def collect(folder: Path) -> dict[str, float]:
    """Sampled accuracy and grade on the held-out side; means over all training steps."""
    tree = json.loads((folder / "evaluation.json").read_text("utf-8"))
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "before": tree["before"]["accuracy"]["mean"],
        "after": tree["after"]["accuracy"]["mean"],
        "grade": tree["after"][THINKING]["mean"],
        "trained": mean(row["rewards/accuracy/mean"] for row in rows),
        "gamma": mean(row["trust/gamma/mean"] for row in rows),
        "seconds": sum(row[f"time/{part}"] for row in rows for part in ("rollout", "update")),
    }


def print_table(results: dict[str, list[dict[str, float]]]) -> None:
    """Means over seeds; of the accuracy every seed."""
    print("| weight | trust | held-out accuracy | each seed | in training | grade | gamma |")
    print("|---|---|---|---|---|---|---|")
    for arm, seeds in results.items():
        weight, trust = arm.split()
        each = ", ".join(f"{one['after']:.3f}" for one in seeds)
        means = {key: mean(one[key] for one in seeds) for key in seeds[0]}
        print(
            f"| {weight} | `{trust}` | **{means['after']:.3f}** | {each} | {means['trained']:.3f} "
            f"| {means['grade']:.2f} | {means['gamma']:.2f} |"
        )


if __name__ == "__main__":
    main()
