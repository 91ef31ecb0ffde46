"""The spine: one training step, the same for every method."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrl.config import UserError
from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.accumulate import Replayed, accumulate, add_metrics
from mmrl.train.metrics import mean_metrics, score_metrics, score_sums
from mmrl.train.minibatch import micro_batches, minibatches, remember_behavior, weigh_alone
from mmrl.train.optimizer import moved_weights
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState, coefficient, coefficient_config
from mmrl.trust_region.controller import initial_state, observe
from mmrl.trust_region.schedule import blend_after, blend_before
from mmrl.trust_region.weights import using
from mmrl.types import Actions, Metrics, Rollout, Turn

MOST_SKIPPED = 3


class DivergedError(UserError):
    """A run whose gradients are not finite any more."""


def train_step(recipe: Recipe, state: TrainState, config: TrainConfig, ranks: Ranks) -> Metrics:
    """Sample, score, and pass over the rollout `updates_per_rollout` times, an optimizer step for
    each of `minibatches` parts; returns the step's metrics.

    Rewards that can score a part of the rollout do so while the rest is sampled: `time/reward` is
    what they take longer than the rollout.
    """
    clock = time.perf_counter()
    prompts = ranks.mine(state.stream.take(config.prompts_per_step))
    shape = (config.prompts_per_step,)
    seeds = torch.randint(2**62, shape, generator=state.generator).tolist()
    turn = Turn(state.step, int(torch.randint(2**62, (), generator=state.generator)))
    with torch.no_grad(), recipe.rewards.scoring(recipe.group_size) as scoring:
        with sampling_weights(recipe, state):
            rollout = recipe.policy.rollout(
                prompts, recipe.group_size, ranks.mine(seeds), turn, scoring.add
            )
        cut_off = overlong(rollout) if recipe.drop_overlong else None
        if cut_off is not None:
            rollout = without(rollout, cut_off)
        rollout = weigh_globally(rollout, ranks)
        sampled = time.perf_counter()
        scores = recipe.rewards.score(rollout, scoring)
        rewards = recipe.combine(scores, state.step)
        if cut_off is not None:
            rewards = torch.where(cut_off.view(rewards.shape), torch.nan, rewards)
        everyone = recipe.advantage(ranks.gather(rewards))
        advantages = everyone[ranks.share(len(everyone))]
        if recipe.rescale is not None:
            advantages = recipe.rescale(advantages, scores)
        watched = recipe.watch(scores, state.step) if recipe.watch else {}
    scored = time.perf_counter()
    metrics = score_metrics(ranks.totals(score_sums(scores, rewards, watched)))
    faults = ranks.totals(recipe.rewards.counts())
    metrics |= {name: count for name, count in faults.items() if count}
    if cut_off is not None:
        metrics |= ranks.totals({"rollout/overlong": float(cut_off.sum())})
    replayed = Replayed()
    parts = minibatches(rollout, config.minibatches)
    weighed = [weigh_alone(rollout, part, ranks) for part in parts] if parts[1:] else [rollout]
    for part in parts[1:]:
        remember_behavior(recipe, rollout, part, config.rows, replayed)
    passes: list[Metrics] = []
    for part, batch in list(zip(parts, weighed, strict=True)) * config.updates_per_rollout:
        found = optimize(recipe, state, batch, advantages.flatten(), replayed, config, ranks, part)
        passes.append(found)
        if found.get("stopped_by_kl"):
            break
    metrics |= mean_metrics(passes) | {"updates": float(len(passes))}
    state.step += 1
    done = time.perf_counter()
    return metrics | {
        "time/rollout": sampled - clock,
        "time/reward": scored - sampled,
        "time/update": done - scored,
    }


def overlong(rollout: Rollout) -> Bool[Tensor, " B"]:
    """Which answers were cut off before their end token: nobody knows what they would have said."""
    return torch.tensor([not getattr(sample, "finished", True) for sample in rollout.samples])


def without(rollout: Rollout, dropped: Bool[Tensor, " B"]) -> Rollout:
    """The rollout with weights over the rows that stay: (1 / |K|) sum over K (CAD-RL, 2508.10118).

    With every row dropped all weights are 0, and so is the loss.
    """
    weights, counts = {}, {}
    for kind, old in rollout.counts.items():
        gone = dropped.to(old.device)
        counts[kind] = torch.where(gone, 0.0, old)
        left = counts[kind].sum().item()
        grown = rollout.weights[kind] * (old.sum().item() / left if left else 0.0)
        weights[kind] = torch.where(gone[:, None].to(grown.device), 0.0, grown)
    return replace(rollout, weights=weights, counts=counts)


def weigh_globally(rollout: Rollout, ranks: Ranks) -> Rollout:
    """The rollout with weights that add to one mean over all ranks, however rows are spread."""
    own = {str(kind): counts.sum().item() for kind, counts in rollout.counts.items()}
    totals = ranks.totals(own)
    weights = {
        kind: weights * (own[kind] / totals[kind] if totals[kind] else 0.0)
        for kind, weights in rollout.weights.items()
    }
    return replace(rollout, weights=weights)


def optimize(
    recipe: Recipe,
    state: TrainState,
    rollout: Rollout,
    advantages: Float[Tensor, " B"],
    replayed: Replayed,
    config: TrainConfig,
    ranks: Ranks,
    part: slice | None = None,
) -> Metrics:
    """One optimizer step on a part of a rollout (None: all of it), `rows` at a time.

    None is taken where the policy is further than `stop_kl` from the one that sampled.
    """
    part = part or slice(0, len(rollout))
    sums: Metrics = {}
    latest: dict[int, Actions] = {}
    for rows in micro_batches(part, config.rows):
        start = rows.start
        found = accumulate(recipe, state, rollout.rows(rows), advantages[rows], replayed, start)
        if "stepwise" in state.anchors:
            latest[start] = found.current
        add_metrics(sums, found.metrics)
    replayed.latest, replayed.latest_at = latest, state.updates
    totals = ranks.totals(sums)
    if config.stop_kl is not None:
        if totals["ratio/kl"] > config.stop_kl:
            state.optimizer.zero_grad(set_to_none=True)
            return totals | {"stopped_by_kl": 1.0}
        totals["stopped_by_kl"] = 0.0
    samples = ranks.totals({"samples": float(part.stop - part.start)})["samples"]
    return totals | update(recipe, state, config, ranks, totals, samples)


def sampling_weights(recipe: Recipe, state: TrainState) -> AbstractContextManager[None]:
    """The weights that sample: the policy's own, or those of the anchor the recipe names."""
    if recipe.sample_from is None:
        return nullcontext()
    return using(recipe.policy.module, state.anchors[recipe.sample_from].weights)


def update(
    recipe: Recipe,
    state: TrainState,
    config: TrainConfig,
    ranks: Ranks,
    totals: Metrics,
    samples: float,
) -> Metrics:
    """Optimizer step, then the anchors that are due, then the controllers.

    A gradient that is not finite skips all three, so no clock moves; MOST_SKIPPED in a row raise
    DivergedError.
    """
    learning = moved_weights(state.optimizer)
    ranks.sum_gradients(learning)
    norm = nn.utils.clip_grad_norm_(learning, config.optimizer.max_grad_norm)
    coefficients = {
        f"coefficient/{name.removeprefix('kl/')}": coefficient(
            recipe, state, name.removeprefix("kl/")
        )
        for name in totals
        if name.startswith("kl/")
    }
    metrics = {"grad_norm": norm.item(), **coefficients}
    if not torch.isfinite(norm):
        state.optimizer.zero_grad(set_to_none=True)
        state.skipped += 1
        if state.skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"step {state.step + 1}: {state.skipped} updates in a row had a gradient that is "
                "not finite; start again with a lower train.optimizer.lr or a stronger "
                "trust_region"
            )
        return metrics | {"skipped_update": 1.0}
    state.skipped = 0
    anchors = recipe.trust_region.anchors()
    for name, anchor in state.anchors.items():
        anchor.move(recipe.policy.module, blend_before(anchors[name]), state.updates)
    set_lr(state, config)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.updates += 1
    for name, anchor in state.anchors.items():
        anchor.move(recipe.policy.module, blend_after(anchors[name], state.updates), state.updates)
    for name in coefficients:
        _observe(recipe, state, name.removeprefix("coefficient/"), totals, samples)
    return metrics | {"skipped_update": 0.0, "lr": state.optimizer.param_groups[0]["lr"]}


def _observe(recipe: Recipe, state: TrainState, name: str, totals: Metrics, samples: float) -> None:
    chosen = coefficient_config(recipe, name)
    before = state.controllers.get(name, initial_state(chosen))
    kl = totals[f"kl/{name}"]
    state.controllers[name] = observe(chosen, before, kl=kl, count=samples)


def set_lr(state: TrainState, config: TrainConfig) -> None:
    """Put the rate of the coming optimizer step in force."""
    share = lr_share(config, state.updates)
    for group in state.optimizer.param_groups:
        group["lr"] = config.optimizer.lr * share


def lr_share(config: TrainConfig, updates: int) -> float:
    """min(1, (n + 1) / warmup_steps) times 1, 1 - u or (1 + cos(pi u)) / 2, u = n / all steps."""
    optimizer = config.optimizer
    warmup = min(1.0, (updates + 1) / optimizer.warmup_steps) if optimizer.warmup_steps else 1.0
    whole = config.steps * config.updates_per_rollout * config.minibatches
    done = min(1.0, updates / whole)
    falling = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return warmup * falling[optimizer.decay]
