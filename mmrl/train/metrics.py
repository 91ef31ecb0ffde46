"""One JSON object a step, always; and the numbers that stand in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from mmrl.data.files import json_text
from mmrl.types import Metrics


class MetricsFile:
    """`metrics.jsonl`: a line a step, flushed to the disk before the next step begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step; a number that is not finite is written as null."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_text({"step": step, **metrics}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_through(self, step: int) -> None:
        """Drop the lines after `step` and a torn last line: a resumed run writes them again."""
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text("utf-8").splitlines() if _upto(line, step)]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)


def _upto(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False


def score_sums(
    scores: Mapping[str, Float[Tensor, "P G"]],
    rewards: Float[Tensor, "P G"],
    watched: Mapping[str, Float[Tensor, "P G"]],
) -> dict[str, float]:
    """Sums and counts of this rank's scores, ready to be added over ranks; NaN is counted apart.

    `watched` goes by its own names.
    """
    sums = {}
    for name, values in {f"rewards/{key}": table for key, table in scores.items()}.items():
        sums |= _moments(name, values)
    for name, values in scores.items():
        sums[f"reward/{name}/missing"] = values.isnan().sum().item()
    for name, values in {**watched, "reward": rewards}.items():
        sums |= _moments(name, values)
    flat = rewards.amax(1) == rewards.amin(1)
    unknown = rewards.isnan().all(1)
    return sums | {
        "flat_groups": flat.sum().item(),
        "silent_groups": unknown.sum().item(),
        "groups": float(len(rewards)),
    }


def score_metrics(totals: Mapping[str, float]) -> Metrics:
    """Means, population standard deviations and counts from the sums of all ranks."""
    metrics: Metrics = {}
    for key, total in totals.items():
        name, _, field = key.rpartition("/")
        count = totals.get(f"{name}/count", 0)
        if field == "missing":
            metrics[key] = total
        elif field == "sum":
            metrics[f"{name}/mean"] = total / count if count else math.nan
        elif field == "square":
            mean = totals[f"{name}/sum"] / count if count else math.nan
            metrics[f"{name}/std"] = math.sqrt(max(total / count - mean**2, 0)) if count else mean
    groups = max(totals["groups"], 1)
    metrics["frac_reward_zero_std"] = totals["flat_groups"] / groups
    metrics["frac_groups_unscorable"] = totals["silent_groups"] / groups
    return metrics


def mean_metrics(passes: Sequence[Metrics]) -> Metrics:
    """Mean of every number over the passes that report it."""
    names = {name: None for found in passes for name in found}
    told = {name: [found[name] for found in passes if name in found] for name in names}
    return {name: sum(values) / len(values) for name, values in told.items()}


def _moments(name: str, values: Float[Tensor, "P G"]) -> dict[str, float]:
    valid = values[~values.isnan()].double()
    total, square = valid.sum().item(), valid.square().sum().item()
    return {f"{name}/sum": total, f"{name}/square": square, f"{name}/count": float(len(valid))}
