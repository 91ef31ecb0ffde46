"""A run as an object for notebooks and scripts: a step at a time, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelerate import Accelerator

from mmrl.recipe import PipelineConfig, Recipe, TrainConfig
from mmrl.train.alarm import respond
from mmrl.train.loop import check_ranks, prepare
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.types import Metrics
from mmrl.video_recipe import processes_a_sample


@dataclass(frozen=True)
class Session:
    """What a run is made of. Iterating trains: `for metrics in session`."""

    recipe: Recipe
    """Its `policy` samples, before, between and after the steps."""
    state: TrainState
    config: TrainConfig
    ranks: Ranks

    def __iter__(self) -> Iterator[Metrics]:
        """The metrics of every step that is left, each once it is done."""
        while self.state.step < self.config.steps:
            yield self.step()

    def step(self) -> Metrics:
        """One training step, also past `train.steps`; the numbers that metrics.jsonl would hold."""
        found = train_step(self.recipe, self.state, self.config, self.ranks)
        if self.config.alarm:
            found |= respond(self.config.alarm, self.recipe, self.state, found)
        return found


def train(config: PipelineConfig) -> Session:
    """The model loaded and ready for step 1, on the GPU where there is one.

    The steps are those of `mmrl train` to the last bit. No folder, checkpoint or evaluation is
    written, and `train.alarm`'s `stop` ends nothing: `alarm/rung` in the metrics tells.
    """
    ranks = Ranks(Accelerator(), processes_a_sample(config))
    check_ranks(config.train, ranks)
    recipe, state = prepare(config, ranks)
    return Session(recipe, state, config.train, ranks)
