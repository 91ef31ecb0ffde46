"""What it saves to score a rollout while it is sampled: `python -m benchmarks.prefetch`.

Flow-GRPO on assets/tiny-wan, 64 small videos a step in eight parts, its reward `remote` behind an
`mmrl serve` of this machine whose scorer waits as a far-away judge does. The same steps are run
both ways in turn, with all scored at the end and with parts scored as they are finished; both must
end with the same weights. Prints the table of docs/reward_service.md: medians, and the median of
each pair's ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.serving import running
from mmrl.config import apply_overrides, read_yaml
from mmrl.policies.base import Ready, no_one_waits
from mmrl.policies.video import VideoPolicy
from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.trust_region.weights import trainable
from mmrl.types import FIRST_TURN, Metrics, Prompt, Rollout, Turn

PROMPTS, GROUP, ROWS = 8, 8, 8
SECONDS = (0.0, 0.1, 0.25, 0.5)
"""How long the scorer takes for one video; 16 are asked about at once."""
CLOCKS = ("time/rollout", "time/reward", "time/update")


class AtTheEnd(VideoPolicy):
    """Tells nobody of its finished parts, so that scoring begins with the whole rollout."""

    def rollout(
        self,
        prompts: Sequence[Prompt],
        group_size: int,
        seeds: Sequence[int],
        turn: Turn = FIRST_TURN,
        ready: Ready = no_one_waits,
    ) -> Rollout:
        return super().rollout(prompts, group_size, seeds, turn)


@dataclass
class Way:
    """One training, and the metrics of its timed steps."""

    recipe: Recipe
    state: TrainState
    config: TrainConfig
    steps: list[Metrics] = field(default_factory=list)

    def seconds(self, *clocks: str) -> list[float]:
        """The sum of some clocks, by step."""
        return [sum(step[clock] for clock in clocks) for step in self.steps]


def service_config(seconds: float) -> dict[str, Any]:
    """One scorer in so many processes that a call seldom waits for another to end."""
    fields = {"seconds": seconds}
    scorer = {"path": "benchmarks/far_judge.py:far_judge", "fields": fields, "workers": 6}
    return {"port": 0, "scorers": {"far_judge": {**scorer, "max_wait_ms": 20}}}


def setup(url: str, *, at_the_end: bool) -> Way:
    """Flow-GRPO with one reward, that of the service."""
    tree = read_yaml(Path("configs/flow_grpo/tiny.yaml"))
    tree["rewards"] = {"judge": {"reward": "remote", "scorer": "far_judge", "url": url}}
    changes = [f"group_size={GROUP}", "evaluate=null", "train.updates_per_rollout=1"]
    changes += ["video.num_frames=5", "video.height=16", "video.width=16"]
    changes += [f"train.prompts_per_step={PROMPTS}", f"train.rows={ROWS}"]
    config = load_config(apply_overrides(tree, changes))
    recipe = config.build()
    if at_the_end:
        recipe.policy.__class__ = AtTheEnd
    return Way(recipe, initial_state(recipe, config.train), config.train)


def measure(url: str, repeats: int) -> tuple[Way, Way]:
    """Both ways in turn, after one step that is not counted; they must learn the same."""
    ranks = Ranks(Accelerator(cpu=True))
    early, late = (setup(url, at_the_end=at_the_end) for at_the_end in (False, True))
    for repeat in range(1 + repeats):
        for way in (early, late) if repeat % 2 else (late, early):
            found = train_step(way.recipe, way.state, way.config, ranks)
            way.steps += [found] if repeat else []
    ours, theirs = (trainable(way.recipe.policy.module) for way in (early, late))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    return early, late


def row(seconds: float, early: Way, late: Way) -> str:
    """One line of the table."""
    whole = [way.seconds(*CLOCKS) for way in (late, early)]
    ratio = statistics.median(a / b for a, b in zip(*whole, strict=True))
    rollouts, waits = (
        [way.seconds(clock) for way in (late, early)] for clock in ("time/rollout", "time/reward")
    )
    cells = [f"{statistics.median(found):.2f}" for found in (*rollouts, *waits, *whole)]
    return f"| {' | '.join([f'{seconds:g}', *cells, f'{ratio:.2f}x'])} |"


def main() -> None:
    """Print one line a scorer."""
    parser = argparse.ArgumentParser(description="Time steps that score early and late.")
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    ways = "at the end | in parts"
    print(f"| a score takes | rollout, {ways} | wait, {ways} | step, {ways} | ratio |")
    for seconds in SECONDS:
        with (
            tempfile.TemporaryDirectory() as name,
            running(service_config(seconds), Path(name)) as service,
        ):
            print(row(seconds, *measure(service.url, repeats)), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
