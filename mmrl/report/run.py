"""What a run folder holds, read once and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl.config import Tree, UserError, read_yaml


@dataclass(frozen=True)
class RunData:
    """One run: its metrics by step, and what else its folder holds (empty where it does not)."""

    folder: Path
    steps: list[dict[str, Any]]
    """One mapping per finished step; None stands for a number that was not finite."""
    evaluation: dict[str, Any]
    config: Tree
    config_text: str
    versions: dict[str, str]
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def pipeline(self) -> str:
        """The method's name, or nothing where no config was kept."""
        return str(self.config.get("pipeline", ""))

    @property
    def groups(self) -> int | None:
        """Prompts sampled per step: the independent draws behind one point of a curve."""
        return (self.config.get("train") or {}).get("prompts_per_step")

    def keys(self, prefix: str, suffix: str = "") -> list[str]:
        """Names of metrics that start and end so, sorted."""
        found = {key for step in self.steps for key in step}
        return sorted(key for key in found if key.startswith(prefix) and key.endswith(suffix))

    def column(self, key: str) -> list[float | None]:
        """A metric at every step."""
        return [step.get(key) for step in self.steps]

    def seconds(self) -> float:
        """Wall time: the summary's, or the sum of the parts of each step."""
        timed = (step.get(key) or 0.0 for step in self.steps for key in self.keys("time/"))
        return float(self.summary["seconds"]) if "seconds" in self.summary else sum(timed)


def find_runs(folder: Path) -> list[Path]:
    """`folder` itself where it is a run, else the runs directly inside it."""
    if (folder / "metrics.jsonl").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    if not inside:
        raise UserError(f"{folder}: no metrics.jsonl here or one folder below; train a run first")
    return inside


def read_run(folder: Path) -> RunData:
    """The run's files; UserError names the file that is empty or broken."""
    config = folder / "config.yaml"
    summary = _json(folder / "summary.json") or _json(folder.parent / "summary.json")
    return RunData(
        folder,
        _steps(folder / "metrics.jsonl"),
        _json(folder / "evaluation.json"),
        read_yaml(config) if config.is_file() else {},
        config.read_text("utf-8") if config.is_file() else "",
        _json(folder / "versions.json"),
        summary.get(folder.resolve().name, {}),
    )


def _steps(path: Path) -> list[dict[str, Any]]:
    """The lines of the file; a torn last line is the step being written, and is left out."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    steps = []
    for number, line in enumerate(lines, start=1):
        try:
            steps.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number}: not valid JSON: {error.msg}") from error
    if not steps:
        raise UserError(f"{path} is empty: no step was finished, so there is nothing to report")
    return steps


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error.msg}") from error
