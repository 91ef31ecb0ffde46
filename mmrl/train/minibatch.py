"""A rollout in parts of whole groups, with an optimizer step each."""

from __future__ import annotations

from dataclasses import replace

import torch

from mmrl.recipe import Recipe
from mmrl.train.accumulate import Replayed, decision_parts, join_decisions
from mmrl.train.ranks import Ranks
from mmrl.types import Rollout


def minibatches(rollout: Rollout, count: int) -> list[slice]:
    """`count` parts of the rollout, equal in groups."""
    size = len(rollout) // count
    assert size % rollout.group_size == 0 and size * count == len(rollout), "groups stay whole"
    return [slice(start, start + size) for start in range(0, len(rollout), size)]


def micro_batches(part: slice, rows: int) -> list[slice]:
    """`rows` of a part at a time."""
    starts = range(part.start, part.stop, rows)
    return [slice(start, min(start + rows, part.stop)) for start in starts]


def weigh_alone(rollout: Rollout, part: slice, ranks: Ranks) -> Rollout:
    """The rollout with the part's weights as if it were all there is, on all ranks together.

    Its loss is then a mean of its own: w <- w (sum of all counts) / (sum of the parts' counts). A
    kind whose decisions are all elsewhere keeps its weights, which are 0 here.
    """
    sums = {f"all/{kind}": counts.sum().item() for kind, counts in rollout.counts.items()}
    sums |= {f"part/{kind}": counts[part].sum().item() for kind, counts in rollout.counts.items()}
    totals = ranks.totals(sums)
    scaled = {}
    for kind, weights in rollout.weights.items():
        own = totals[f"part/{kind}"]
        scaled[kind] = weights * (totals[f"all/{kind}"] / own) if own else weights
    return replace(rollout, weights=scaled)


@torch.no_grad()
def remember_behavior(
    recipe: Recipe, rollout: Rollout, part: slice, rows: int, replayed: Replayed
) -> None:
    """Replay rows whose first update comes after another's: their ratio starts from here.

    Only the first part is on-policy when it is first replayed with gradients.
    """
    for each in micro_batches(part, rows):
        batch = rollout.rows(each)
        found = [
            recipe.policy.evaluate(batch.decisions(decisions))
            for decisions in decision_parts(recipe, batch)
        ]
        replayed.behavior[each.start] = join_decisions(found)
