"""All of a run that changes, and the coefficient it puts in force."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mmrl.data.prompts import PromptStream
from mmrl.recipe import Recipe
from mmrl.reward.faults import FaultMemory
from mmrl.trust_region.controller import Coefficient, ControllerState, current
from mmrl.trust_region.schedule import AnchorKind
from mmrl.trust_region.weights import Anchor


@dataclass
class AlarmState:
    """What the alarm on reward hacking remembers."""

    history: dict[str, list[float]] = field(default_factory=dict)
    """Step means by reward, the newest last, at most two windows."""
    kl_factor: float = 1.0
    """What every KL coefficient is multiplied with."""
    rung: int = 0
    """How often the alarm went off."""


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
    alarm: AlarmState = field(default_factory=AlarmState)
    faults: list[dict[str, FaultMemory]] = field(default_factory=list)
    """By process and reward: breakers and budgets when the state was last saved."""
    step: int = 0
    updates: int = 0
    skipped: int = 0
    """Updates in a row whose gradient was not finite."""


def coefficient(recipe: Recipe, state: TrainState, name: str) -> float:
    """The coefficient in force for `anchor/kind`."""
    chosen = coefficient_config(recipe, name)
    found = current(chosen, state.controllers.get(name), updates=state.updates)
    return found * state.alarm.kl_factor


def coefficient_config(recipe: Recipe, name: str) -> Coefficient:
    """The config of the coefficient of `anchor/kind`."""
    anchor, _, kind = name.partition("/")
    found = {str(k): v for k, v in recipe.trust_region.anchors().items()}[anchor].of_kind(kind)
    assert found is not None, f"{anchor} does not pull on {kind}"
    return found
