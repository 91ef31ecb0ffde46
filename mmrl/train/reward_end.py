"""A run that a reward ended, and how the resumed one differs from one that was only stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrl.reward import RewardError, RewardTable
from mmrl.train.state import TrainState

NOTE = "ended_by_reward.txt"
"""In the folder of a run: why a reward ended it. Gone with the next checkpoint."""


@contextmanager
def noting_reward_errors(run: Path) -> Iterator[None]:
    """A RewardError leaves its words in the run's folder, and tells how to go on."""
    try:
        yield
    except RewardError as error:
        (run / NOTE).write_text(f"{error}\n", encoding="utf-8")
        raise RewardError(
            f"{error}; once that is mended, `mmrl resume {run}` goes on, with a new budget"
        ) from error


def recall_faults(table: RewardTable, state: TrainState, run: Path, process: int) -> None:
    """What budgets had seen when the run was saved, unless a reward ended it: then they are new."""
    if state.faults and not (run / NOTE).exists():
        table.recall(state.faults[process % len(state.faults)])


def forget_reward_error(run: Path) -> None:
    """The run got past it: a checkpoint is saved."""
    (run / NOTE).unlink(missing_ok=True)
