"""The spine: one training step, the same for every method."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.data.prompts import PromptStream
from mmrl.recipe import Recipe, TrainConfig
from mmrl.train.metrics import score_metrics, score_sums
from mmrl.train.ranks import Ranks
from mmrl.trust_region.controller import ControllerState, current, initial_state, observe
from mmrl.trust_region.penalty import anchor_kls, penalty
from mmrl.trust_region.schedule import AnchorKind, blend_after, blend_before
from mmrl.trust_region.weights import Anchor, trainable, using
from mmrl.types import Actions, Metrics, Rollout


@dataclass
class TrainState:
    """All that changes while a run goes on, and all that a checkpoint must hold."""

    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    """Source of every sampling seed; the same on every rank."""
    stream: PromptStream
    anchors: dict[AnchorKind, Anchor]
    controllers: dict[str, ControllerState] = field(default_factory=dict)
    """By `anchor/kind`."""
    step: int = 0
    updates: int = 0


@dataclass
class Replayed:
    """What passes over one rollout leave for the next pass over the same rows."""

    behavior: dict[int, Actions] = field(default_factory=dict)
    """Likelihoods of the first pass, by first row: the denominator of the ratio."""
    latest: dict[int, Actions] = field(default_factory=dict)
    latest_at: int = -1
    """Optimizer steps done when `latest` was computed."""


def train_step(recipe: Recipe, state: TrainState, config: TrainConfig, ranks: Ranks) -> Metrics:
    """Sample, score, and take `updates_per_rollout` optimizer steps; returns the step's metrics."""
    clock = time.perf_counter()
    prompts = ranks.mine(state.stream.take(config.prompts_per_step))
    shape = (config.prompts_per_step,)
    seeds = torch.randint(2**62, shape, generator=state.generator).tolist()
    with torch.no_grad():
        rollout = recipe.policy.rollout(prompts, recipe.group_size, ranks.mine(seeds))
        rollout = weigh_globally(rollout, ranks)
        sampled = time.perf_counter()
        scores = recipe.rewards.score(rollout)
        rewards = recipe.combine(scores, state.step)
        advantages = recipe.advantage(rewards).flatten()
    scored = time.perf_counter()
    metrics = score_metrics(ranks.totals(score_sums(scores, rewards)))
    replayed = Replayed()
    for number in range(config.updates_per_rollout):
        found = optimize(recipe, state, rollout, advantages, replayed, config, ranks)
        share = 1 / config.updates_per_rollout
        for name, value in found.items():
            metrics[name] = metrics.get(name, 0.0) + share * value if number else share * value
    state.step += 1
    done = time.perf_counter()
    return metrics | {
        "time/rollout": sampled - clock,
        "time/reward": scored - sampled,
        "time/update": done - scored,
    }


def weigh_globally(rollout: Rollout, ranks: Ranks) -> Rollout:
    """The rollout with weights that add to one mean over all ranks, however rows are spread."""
    totals = ranks.totals({str(kind): count for kind, count in rollout.counts.items()})
    weights = {
        kind: weights * (rollout.counts[kind] / totals[kind] if totals[kind] else 0.0)
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
) -> Metrics:
    """One optimizer step on a whole rollout, `rows` at a time."""
    sums: Metrics = {}
    latest: dict[int, Actions] = {}
    for start in range(0, len(rollout), config.rows):
        part = slice(start, start + config.rows)
        found = accumulate(recipe, state, rollout.rows(part), advantages[part], replayed, start)
        latest[start] = found.current
        for name, value in found.metrics.items():
            sums[name] = sums.get(name, 0.0) + value
    replayed.latest, replayed.latest_at = latest, state.updates
    totals = ranks.totals(sums)
    samples = ranks.totals({"samples": float(len(rollout))})["samples"]
    return totals | update(recipe, state, config, ranks, totals, samples)


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
    """Add the gradient of objective + penalty of one micro-batch.

    The first pass over a rollout is on-policy: its own likelihoods become the denominator of the
    ratio, and their distance from what the sampler recorded is logged.
    """
    anchors = evaluate_anchors(recipe, state, batch, replayed, start)
    actions = recipe.policy.evaluate(batch)
    constant: Actions = {kind: stats.detach() for kind, stats in actions.items()}
    gap = log_prob_gap(constant, batch)
    first = replayed.behavior.setdefault(start, constant)
    batch = replace(batch, behavior=first)
    loss, metrics = recipe.objective(actions, anchors, batch, advantages.to(_device(actions)))
    kls = anchor_kls(actions, anchors, batch.weights, estimator=recipe.trust_region.estimator)
    coefficients = {name: coefficient(recipe, state, name) for name in kls}
    total = loss + penalty(kls, coefficients).to(loss.device)
    if total.requires_grad:
        total.backward()
    metrics |= {"loss": total.item(), "ratio/deviation": ratio_deviation(constant, batch)}
    if first is constant:
        metrics["rollout/log_prob_gap"] = gap
    return Accumulated(constant, metrics | {f"kl/{k}": v.item() for k, v in kls.items()})


@torch.no_grad()
def evaluate_anchors(
    recipe: Recipe, state: TrainState, batch: Rollout, replayed: Replayed, start: int
) -> Mapping[str, Actions]:
    """Likelihoods of the batch under every anchor.

    The stepwise anchor holds the weights of the previous pass, so on a second pass over the same
    rows its likelihoods are already known.
    """
    found: dict[str, Actions] = {}
    for name, anchor in state.anchors.items():
        known = name == "stepwise" and replayed.latest_at == anchor.moved_at
        if known and start in replayed.latest:
            found[name] = replayed.latest[start]
            continue
        with using(recipe.policy.module, anchor.weights):
            found[name] = recipe.policy.evaluate(batch)
    return found


def update(
    recipe: Recipe,
    state: TrainState,
    config: TrainConfig,
    ranks: Ranks,
    totals: Metrics,
    samples: float,
) -> Metrics:
    """Optimizer step, then the anchors that are due, then the controllers.

    A gradient that is not finite skips all three, so no clock moves.
    """
    learning = list(trainable(recipe.policy.module).values())
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
        return metrics | {"skipped_update": 1.0}
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
    anchor = _anchor_config(recipe, name)
    before = state.controllers.get(name, initial_state(anchor.coefficient))
    kl = totals[f"kl/{name}"]
    state.controllers[name] = observe(anchor.coefficient, before, kl=kl, count=samples)


def set_lr(state: TrainState, config: TrainConfig) -> None:
    """lr * min(1, (updates + 1) / warmup_steps)."""
    warmup = config.optimizer.warmup_steps
    share = min(1.0, (state.updates + 1) / warmup) if warmup else 1.0
    for group in state.optimizer.param_groups:
        group["lr"] = config.optimizer.lr * share


def coefficient(recipe: Recipe, state: TrainState, name: str) -> float:
    """The coefficient in force for `anchor/kind`."""
    anchor = _anchor_config(recipe, name)
    return current(anchor.coefficient, state.controllers.get(name), updates=state.updates)


def _anchor_config(recipe: Recipe, name: str):
    kinds = recipe.trust_region.anchors()
    return next(anchor for kind, anchor in kinds.items() if name.startswith(f"{kind}/"))


@torch.no_grad()
def ratio_deviation(actions: Actions, batch: Rollout) -> float:
    """sum w |ratio - 1|: exactly 0 on the first update after a rollout."""
    return _weighted_gap(actions, batch, lambda log_ratio: log_ratio.exp() - 1)


@torch.no_grad()
def log_prob_gap(actions: Actions, batch: Rollout) -> float:
    """sum w |replayed - sampled log-prob|: how far replay is from what the sampler recorded."""
    return _weighted_gap(actions, batch, lambda log_ratio: log_ratio)


def _weighted_gap(actions: Actions, batch: Rollout, of) -> float:
    total = 0.0
    for kind, stats in actions.items():
        weights = batch.weights[kind]
        live = weights != 0
        known = batch.behavior[kind].log_probs.to(stats.log_probs.device)
        log_ratio = torch.where(live, stats.log_probs - known, 0.0)
        total += (weights * of(log_ratio).abs()).sum().item()
    return total


def _device(actions: Actions) -> torch.device:
    return next(iter(actions.values())).log_probs.device
