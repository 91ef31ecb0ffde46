"""Reward hacking: a trained reward rises while a watched one falls, and what is done about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

import torch
from torch import nn

from mmrl.config import UserError
from mmrl.recipe import Alarm, Recipe
from mmrl.train.optimizer import set_masters
from mmrl.train.state import AlarmState, TrainState
from mmrl.trust_region.weights import Anchor, trainable
from mmrl.types import Metrics

logger = logging.getLogger(__name__)


class RewardHackingError(UserError):
    """A run that its alarm stopped, after its checkpoint was written."""


def change(values: Sequence[float], window: int) -> float:
    """Mean of the last `window` values minus that of the `window` before, in standard errors.

    z = (m2 - m1) / sqrt((s1^2 + s2^2) / window) with sample variances; 0 with fewer values, with a
    NaN among them, or where nothing changed.
    """
    recent, earlier = values[-window:], values[-2 * window : -window]
    if len(earlier) < window or not all(map(math.isfinite, (*recent, *earlier))):
        return 0.0
    gap = fmean(recent) - fmean(earlier)
    error = math.sqrt((variance(recent) + variance(earlier)) / window)
    return 0.0 if gap == 0 else gap / error if error else math.copysign(math.inf, gap)


def observe(alarm: Alarm, state: AlarmState, metrics: Metrics) -> None:
    """Remember the step's mean of every reward."""
    for key, value in metrics.items():
        if key.startswith("rewards/") and key.endswith("/mean"):
            name = key.removeprefix("rewards/").removesuffix("/mean")
            kept = [*state.history.get(name, []), value]
            state.history[name] = kept[-2 * alarm.window :]


def parted(alarm: Alarm, state: AlarmState, weights: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs of a trained reward that improved and a watched one that fell.

    A trained reward of negative weight, a penalty, improves where it falls.
    """
    moved = {name: change(values, alarm.window) for name, values in state.history.items()}
    better = [n for n, w in weights.items() if w and _toward(w, moved.get(n)) > alarm.threshold]
    worse = [n for n, w in weights.items() if not w and moved.get(n, 0.0) < -alarm.threshold]
    return [(up, down) for up in better for down in worse]


def _toward(weight: float, moved: float | None) -> float:
    return math.copysign(1.0, weight) * (moved or 0.0)


def respond(alarm: Alarm, recipe: Recipe, state: TrainState, metrics: Metrics) -> Metrics:
    """Observe the step and act where rewards parted; `alarm/*` says what is in force.

    History starts again after an alarm, so the next one speaks of new steps only. With `stop` the
    caller saves and raises: `alarm/rung` of the returned metrics is then 1.
    """
    observe(alarm, state.alarm, metrics)
    pairs = parted(alarm, state.alarm, recipe.rewards.weights)
    if pairs:
        logger.warning("%s", told(alarm, pairs, state.step))
        state.alarm.rung += 1
        state.alarm.history.clear()
        if alarm.action == "raise_kl":
            state.alarm.kl_factor *= alarm.kl_factor
        elif alarm.action == "roll_back":
            anchor = state.anchors.get("periodic") or state.anchors["ema"]
            roll_back(recipe.policy.module, anchor, state.optimizer)
    return {"alarm/rung": float(bool(pairs)), "alarm/kl_factor": state.alarm.kl_factor}


def told(alarm: Alarm, pairs: Sequence[tuple[str, str]], step: int) -> str:
    """One line about what parted and what is done."""
    words = ", ".join(f"{up} improves while {down} falls" for up, down in pairs)
    deed = {
        "warn": "nothing is changed",
        "raise_kl": f"KL coefficients are multiplied by {alarm.kl_factor:g}",
        "stop": "the run stops",
        "roll_back": "the anchor's weights are put back",
    }
    return f"reward hacking? step {step}: {words}; {deed[alarm.action]}"


@torch.no_grad()
def roll_back(module: nn.Module, anchor: Anchor, optimizer: torch.optim.Optimizer) -> None:
    """The anchor's weights in the place of the policy's, and no memory in the optimizer."""
    for name, weight in trainable(module).items():
        weight.copy_(anchor.weights[name])
    set_masters(module, optimizer)
    optimizer.state.clear()
