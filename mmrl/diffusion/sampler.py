"""The loop over noise levels: a velocity function in, the whole path out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.transitions import Transition, TransitionKind, Variant, transition

State = Float[Tensor, "B ..."]


@dataclass(frozen=True)
class Path:
    """States x_0 .. x_N from noise to data, and the Gaussian of each stochastic step."""

    states: Sequence[State]
    transitions: Sequence[Transition | None]
    """None where the step was deterministic."""


def sample_path(
    velocity: Callable[[State, int], State],
    x: State,
    sigmas: Float[Tensor, " N1"],
    *,
    kind: TransitionKind,
    eta: float,
    stochastic: Sequence[bool],
    noise: Callable[[int], State],
    variant: Variant = "fixed",
) -> Path:
    """x[i+1] = mean + std noise(i) at stochastic steps, the Euler ODE step at the others."""
    if len(stochastic) != len(sigmas) - 1:
        raise ValueError(f"{len(stochastic)} marks for {len(sigmas) - 1} steps")
    states, found = [x], []
    for step in range(len(sigmas) - 1):
        v = velocity(x, step)
        chosen: TransitionKind = kind if stochastic[step] else "ode"
        drawn = step_transition(chosen, x, v, sigmas, step, eta=eta, variant=variant)
        x = drawn.mean + drawn.std * noise(step) if stochastic[step] else drawn.mean
        states.append(x)
        found.append(drawn if stochastic[step] else None)
    return Path(states, found)


def step_transition(
    kind: TransitionKind,
    x: State,
    velocity: State,
    sigmas: Float[Tensor, " N1"],
    step: int,
    *,
    eta: float,
    variant: Variant,
) -> Transition:
    """One step of a schedule, in float32 at least; rollout and replay share it."""
    work = torch.promote_types(x.dtype, torch.float32)
    levels = sigmas.tolist()
    return transition(
        kind,
        x.to(work),
        velocity.to(work),
        levels[step],
        levels[step + 1],
        eta=eta,
        sigma_1=levels[1],
        variant=variant,
    )
