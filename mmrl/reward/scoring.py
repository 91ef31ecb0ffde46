"""One batch under every reward of a table, scored while the rest of it is still made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmrl.reward.scored import Scored
from mmrl.reward.scorer import Scoring
from mmrl.types import Sample


class TableScoring:
    """The scoring of one batch by name of the reward; its samples may come in parts."""

    def __init__(self, batches: Mapping[str, Scoring]) -> None:
        self.batches = dict(batches)

    def add(self, samples: Sequence[Sample]) -> None:
        """The next finished samples in order, whole groups: rewards that can begin with them do.

        ConfigError where a call about earlier ones found a mistake in the config.
        """
        for batch in self.batches.values():
            batch.add(samples)

    def finish(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Scores of the whole batch, of which any number of first samples were added.

        Async rewards begin first and work while the others run.
        """
        order = sorted(self.batches, key=lambda name: self.batches[name].scorer.caller.is_async)
        ends = {name: self.batches[name].start(samples) for name in order}
        found = {name: ends[name]() for name in order}
        return {name: found[name] for name in self.batches}

    def cancel(self) -> None:
        """End every call that is under way."""
        for batch in self.batches.values():
            batch.cancel()
