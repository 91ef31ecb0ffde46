"""Where a run may be written: a new or empty folder that lies in no other run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from mmrl.config import ConfigError
from mmrl.train.checkpoint import checkpoints

HEADING = {"config.yaml", "versions.json"}
"""What a run writes before its model loads."""
NAMED = 3
"""Names of foreign files that a refusal lists."""


def is_run(folder: Path) -> bool:
    """Whether a run was begun in this folder: its heading, its metrics or a checkpoint is there."""
    has_heading = all((folder / name).is_file() for name in HEADING)
    has_steps = (folder / "metrics.jsonl").exists() or bool(checkpoints(folder / "checkpoints"))
    return has_heading or has_steps


def check_new(run: Path) -> None:
    """ConfigError unless a run can begin in `run` and nothing of anybody is written over.

    The folder is missing or empty, or holds no more than the heading of a run that ended before
    its first step; and no folder around it is a run.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file; name a folder", key="output")
    for around in run.resolve().parents:
        if is_run(around):
            raise ConfigError(
                f"{run} lies inside the run {around}; choose a folder beside it, such as "
                f"{quote(f'output={around}-2')}",
                key="output",
            )
    names = {path.name for path in run.iterdir()} if run.exists() else set()
    if not names or names == HEADING:
        return
    if is_run(run):
        raise ConfigError(
            f"{run} already holds a run: `mmrl resume {run}` continues it, output=... starts "
            "another",
            key="output",
        )
    foreign = sorted(names)
    more = ", ..." if len(foreign) > NAMED else ""
    raise ConfigError(
        f"{run} is not empty and holds no run of mmrl ({', '.join(foreign[:NAMED])}{more}); "
        f"choose a new folder, such as {quote(f'output={run}/run')}",
        key="output",
    )
