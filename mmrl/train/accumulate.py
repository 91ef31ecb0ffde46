"""The gradient of one micro-batch: replay, anchors, objective and penalty, backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.recipe import Recipe
from mmrl.train.ratio import log_prob_gap, passes_apart, ratio_metrics
from mmrl.train.state import TrainState, coefficient
from mmrl.trust_region.penalty import anchor_kls, penalty
from mmrl.trust_region.schedule import TrustRegion
from mmrl.trust_region.weights import using
from mmrl.types import Actions, Metrics, Rollout, concat_stats


@dataclass
class Replayed:
    """What passes over one rollout leave for the next pass over the same rows."""

    behavior: dict[int, Actions] = field(default_factory=dict)
    """Likelihoods of the first pass, by first row: the denominator of the ratio."""
    latest: dict[int, Actions] = field(default_factory=dict)
    latest_at: int = -1
    """Optimizer steps done when `latest` was computed."""
    anchors: dict[tuple[str, int, int], tuple[int, Actions]] = field(default_factory=dict)
    """Version and likelihoods of an anchor, by its name, first row and first decision."""


@dataclass(frozen=True)
class Accumulated:
    """What one micro-batch leaves behind besides its gradients."""

    current: Actions
    metrics: Metrics
    """Weighted sums: added over micro-batches and ranks they are means."""


def accumulate(
    recipe: Recipe,
    state: TrainState,
    batch: Rollout,
    advantages: Float[Tensor, " B"],
    replayed: Replayed,
    start: int,
) -> Accumulated:
    """Add the gradient of objective + penalty of one micro-batch, some decisions at a time.

    The first pass over a rollout is on-policy: its own likelihoods become the denominator of the
    ratio, and their distance from what the sampler recorded is logged.
    """
    cuts = list(decision_parts(recipe, batch))
    if recipe.objective.couples_decisions and len(cuts) > 1:
        found = _accumulate_coupled(recipe, state, batch, advantages, replayed, start)
    else:
        parts = [
            _accumulate_part(recipe, state, batch, advantages, replayed, start, cut) for cut in cuts
        ]
        found = Accumulated(join_decisions([part.current for part in parts]), {})
        for part in parts:
            add_metrics(found.metrics, part.metrics)
    replayed.behavior.setdefault(start, found.current)
    return found


def _accumulate_part(
    recipe: Recipe,
    state: TrainState,
    whole: Rollout,
    advantages: Float[Tensor, " B"],
    replayed: Replayed,
    start: int,
    part: slice,
) -> Accumulated:
    batch = whole.decisions(part)
    anchors = evaluate_anchors(recipe, state, batch, replayed, start, part)
    actions = recipe.policy.evaluate(batch)
    constant: Actions = {kind: stats.detach() for kind, stats in actions.items()}
    known = replayed.behavior.get(start)
    metrics: Metrics = {} if known else {"rollout/log_prob_gap": log_prob_gap(constant, batch)}
    first = cut_decisions(known, part) if known else constant
    batch = replace(batch, behavior=first)
    total, found = objective_and_penalty(recipe, state, actions, anchors, batch, advantages)
    if total.requires_grad:
        total.backward()
    metrics |= found | ratio_metrics(constant, batch)
    return Accumulated(constant, metrics)


def _accumulate_coupled(
    recipe: Recipe,
    state: TrainState,
    batch: Rollout,
    advantages: Float[Tensor, " B"],
    replayed: Replayed,
    start: int,
) -> Accumulated:
    """A loss that mixes the decisions of a path, in the memory of one decision, exactly.

    First d loss / d likelihood on constants, then sum (slope * likelihood) part by part: the chain
    rule. The first pass over a rollout takes the constants from the sampler. Where both forward
    passes are apart the chain rule does not hold: `replay/gap` says so.
    """
    parts = list(decision_parts(recipe, batch))
    known = replayed.behavior.get(start)
    with torch.no_grad():
        by_part = [
            evaluate_anchors(recipe, state, batch.decisions(part), replayed, start, part)
            for part in parts
        ]
        anchors = {
            name: join_decisions([found[name] for found in by_part]) for name in state.anchors
        }
        constant = batch.behavior
        if known:
            constant = join_decisions([recipe.policy.evaluate(batch.decisions(p)) for p in parts])
            batch = replace(batch, behavior=known)
    leaves: Actions = {kind: stats.leaf() for kind, stats in constant.items()}
    total, metrics = objective_and_penalty(recipe, state, leaves, anchors, batch, advantages)
    metrics |= ratio_metrics(constant, batch)
    if not total.requires_grad:
        return Accumulated(constant, metrics)
    total.backward()
    for part in parts:
        cut = batch.decisions(part)
        actions = recipe.policy.evaluate(cut)
        apart = passes_apart(actions, replace(cut, behavior=cut_decisions(constant, part)))
        first = {} if known else {"rollout/log_prob_gap": apart}
        add_metrics(metrics, first | {"replay/gap": apart})
        pull(leaves, actions, part).backward()
    return Accumulated(constant, metrics)


def objective_and_penalty(
    recipe: Recipe,
    state: TrainState,
    actions: Actions,
    anchors: Mapping[str, Actions],
    batch: Rollout,
    advantages: Float[Tensor, " B"],
) -> tuple[Float[Tensor, ""], Metrics]:
    """The loss of one micro-batch, and its parts as metrics."""
    loss, metrics = recipe.objective(actions, anchors, batch, advantages.to(_device(actions)))
    region = recipe.trust_region
    kls = anchor_kls(
        actions,
        pulling(region, anchors),
        batch.weights,
        estimator=region.estimator,
        behavior=batch.behavior if region.importance_weighted else None,
    )
    coefficients = {name: coefficient(recipe, state, name) for name in kls}
    total = loss + penalty(kls, coefficients).to(loss.device)
    return total, metrics | {"loss": total.item()} | {f"kl/{k}": v.item() for k, v in kls.items()}


def pulling(region: TrustRegion, anchors: Mapping[str, Actions]) -> dict[str, Actions]:
    """Of every anchor the action kinds that it pulls on."""
    return {
        str(name): {
            kind: stats for kind, stats in anchors[name].items() if chosen.of_kind(kind) is not None
        }
        for name, chosen in region.anchors().items()
    }


def pull(leaves: Actions, actions: Actions, part: slice) -> Float[Tensor, ""]:
    """sum slope * value over one part's likelihoods and means: its gradient is the loss's own."""
    total = torch.zeros((), device=_device(actions))
    for kind, stats in actions.items():
        pairs = ((leaves[kind].log_probs, stats.log_probs), (leaves[kind].mean, stats.mean))
        for leaf, value in pairs:
            if leaf is not None and leaf.grad is not None and value is not None:
                total = total + (leaf.grad[:, part] * value).sum()
    return total


def decision_parts(recipe: Recipe, batch: Rollout) -> Iterator[slice]:
    """Slices of the decisions that one forward pass replays."""
    count = batch.num_decisions
    size = recipe.policy.decision_chunk or count
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def cut_decisions(actions: Actions, part: slice) -> Actions:
    """The same table for some decisions."""
    return {kind: stats.decisions(part) for kind, stats in actions.items()}


def join_decisions(parts: Sequence[Actions]) -> Actions:
    """One table out of consecutive parts."""
    return {kind: concat_stats([part[kind] for part in parts], dim=1) for kind in parts[0]}


def add_metrics(sums: Metrics, found: Metrics) -> None:
    """Add every number of `found` into `sums`."""
    for name, value in found.items():
        sums[name] = sums.get(name, 0.0) + value


@torch.no_grad()
def evaluate_anchors(
    recipe: Recipe,
    state: TrainState,
    batch: Rollout,
    replayed: Replayed,
    start: int,
    part: slice,
) -> Mapping[str, Actions]:
    """Likelihoods of the batch under every anchor.

    The stepwise anchor holds the weights of the previous pass, so on a second pass over the same
    rows its likelihoods are already known; another anchor's are, unless it moved in between.
    """
    found: dict[str, Actions] = {}
    for name, anchor in state.anchors.items():
        key = (name, start, part.start)
        version, known = replayed.anchors.get(key, (-1, None))
        if name == "stepwise":
            latest = replayed.latest.get(start) if replayed.latest_at == anchor.moved_at else None
            version, known = anchor.version, latest and cut_decisions(latest, part)
        if known is None or version != anchor.version:
            with using(recipe.policy.module, anchor.weights):
                known = recipe.policy.evaluate(batch)
            if name != "stepwise":
                replayed.anchors[key] = (anchor.version, known)
        found[name] = known
    return found


def _device(actions: Actions) -> torch.device:
    return next(iter(actions.values())).log_probs.device
