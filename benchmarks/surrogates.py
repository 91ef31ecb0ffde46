"""Bounds on the ratio where a rollout is used eight times: `python -m benchmarks.surrogates DIR`.

Trains configs/grpo/tiny.yaml with each surrogate of the policy gradient, a rollout in four
minibatches passed over twice, three seeds each, and prints the table of docs/performance.md. Writes
docs/figures/surrogates.svg and surrogates_bad.svg: how hard a token's log-probability is pulled,
over its ratio. Runs that are there already are kept; `--figures` draws only.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import torch
import yaml
from pydantic import TypeAdapter

from benchmarks.figures import save_lines
from benchmarks.trainings import train_once
from mmrl.config import read_yaml
from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import Surrogate, surrogate_loss
from mmrl.objectives.surrogate_kinds import SurrogateConfig
from mmrl.report.plots import Series

SURROGATES = {
    "clip": ["clip_low=0.2", "clip_high=0.28"],
    "gspo": ["surrogate={kind: gspo}"],
    "cispo": ["surrogate={kind: cispo}", "weighting=decision"],
    "sapo": ["surrogate={kind: sapo}"],
    "gmpo": ["surrogate={kind: gmpo}"],
    "vespo": ["surrogate={kind: vespo}", "weighting=decision"],
    "dppo": ["surrogate={kind: dppo}", "weighting=decision"],
    "r2vpo": ["surrogate={kind: r2vpo}", "weighting=decision"],
}
REUSE = ["train.minibatches=4", "train.updates_per_rollout=2"]
DRAWN = ("cispo", "sapo", "vespo", "r2vpo")
FIGURES = Path("docs/figures")


def main() -> None:
    """Draw, and unless told otherwise run what is missing and print the table."""
    parser = argparse.ArgumentParser(description="Compare surrogates on reused rollouts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--figures", action="store_true")
    arguments = parser.parse_args()
    save_lines(FIGURES / "surrogates.svg", "pull on log pi, A = 1", pulls(1.0), "ratio")
    save_lines(FIGURES / "surrogates_bad.svg", "pull on log pi, A = -1", pulls(-1.0), "ratio")
    if arguments.figures:
        return
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in SURROGATES]
    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda job: run(arguments.folder, arguments.steps, *job), jobs))
    print_table(
        {
            name: [outcome(arguments.folder / f"{name}-{seed}") for seed in range(arguments.seeds)]
            for name in SURROGATES
        }
    )


def pulls(advantage: float) -> list[Series]:
    """d gain / d log pi over the ratio, for a token that stands alone in its answer."""
    ratio = torch.linspace(0.03, 3.0, 100, dtype=torch.float64)
    kinds: dict[str, Surrogate] = {"clip 0.2, 0.28": Clip(0.2, 0.28)}
    kinds |= {kind: TypeAdapter(SurrogateConfig).validate_python({"kind": kind}) for kind in DRAWN}
    return [
        Series(name, ratio.tolist(), pull(kind, ratio, advantage)) for name, kind in kinds.items()
    ]


def pull(surrogate: Surrogate, ratio: torch.Tensor, advantage: float) -> list[float]:
    """The slope of one surrogate at each ratio."""
    log_probs = ratio.log()[:, None].requires_grad_()
    behavior, ones = torch.zeros_like(log_probs), torch.ones_like(log_probs)
    gains = torch.full_like(ratio, advantage)
    loss, _ = surrogate_loss(surrogate, log_probs, behavior, gains, ones.detach())
    [slope] = torch.autograd.grad(-loss, log_probs)
    return slope[:, 0].tolist()


def run(folder: Path, steps: int, name: str, seed: int) -> None:
    """One training with one surrogate."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "unbounded.yaml"
    tree = read_yaml(Path("configs/grpo/tiny.yaml"))
    del tree["clip_high"]
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    budget = [f"train.steps={steps}", f"train.seed={seed}", "train.optimizer.lr=3.0e-4"]
    command = ["train", str(config), *REUSE, *budget, *SURROGATES[name]]
    train_once(folder / f"{name}-{seed}", command)


def outcome(run: Path) -> dict[str, float]:
    """Held-out accuracy before and after, and what the last ten steps say of the ratio."""
    tree = json.loads((run / "evaluation.json").read_text("utf-8"))
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    found = {when: tree[when]["accuracy"]["mean"] for when in ("before", "after")}
    for name in ("ratio/deviation", "clip_fraction", "kl/fixed/token"):
        found[name] = mean(row[name] for row in rows[-10:])
    return found


def print_table(results: dict[str, list[dict[str, float]]]) -> None:
    """Means over seeds, with the smallest and largest seed of the accuracy."""
    print("| surrogate | accuracy after | seeds | abs(ratio - 1) | bounded | KL |")
    print("|---|---|---|---|---|---|")
    print(f"| before | {next(iter(results.values()))[0]['before']:.3f} | | | | |")
    for name, seeds in sorted(results.items(), key=lambda item: -mean(s["after"] for s in item[1])):
        after = [one["after"] for one in seeds]
        rest = [mean(one[key] for one in seeds) for key in list(seeds[0])[2:]]
        print(
            f"| `{name}` | **{mean(after):.3f}** | {min(after):.3f} to {max(after):.3f} "
            f"| {rest[0]:.3f} | {rest[1]:.3f} | {rest[2]:.3f} |"
        )


if __name__ == "__main__":
    main()
