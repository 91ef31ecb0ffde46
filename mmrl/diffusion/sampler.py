"""The loop over noise levels: a denoiser's output in, the whole path out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.ddim import Prediction, ddim_transition
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import Transition, TransitionKind, Variant, transition

State = Float[Tensor, "B ..."]
NetworkOutput = Prediction | Literal["velocity"]
"""What the denoiser says: the velocity of a flow, or one of the three forms of DDPM models."""

FIRST_LEVEL_SLACK = 1e-5
"""How far from 1 the first noise level of a flow may lie and still be pure noise."""


@dataclass(frozen=True)
class Schedule:
    """The grid of one sampling run."""

    levels: Float[Tensor, " N1"]
    """From noise to data in float64: sigma of a flow (1 to 0), alpha-bar of a DDPM model."""
    timesteps: Float[Tensor, " N"]
    """What the network is fed at each step."""

    def __len__(self) -> int:
        return len(self.timesteps)

    @classmethod
    def flow(cls, sigmas: Float[Tensor, " N1"]) -> Schedule:
        """A flow model is fed 1000 sigma; a first level within FIRST_LEVEL_SLACK of 1 is 1.

        UniPC of diffusers, which Wan's folders name, begins at 0.999999: the rules for the pole of
        flow's and SAGE's diffusion at 1 are meant for that level.
        """
        levels = sigmas.clone()
        if abs(levels[0].item() - 1) < FIRST_LEVEL_SLACK:
            levels[0] = 1.0
        return cls(levels, 1000 * levels[:-1])

    @classmethod
    def shifted(cls, num_steps: int, shift: float) -> Schedule:
        """The shifted linear grid of a flow."""
        return cls.flow(shifted_sigmas(num_steps, shift))


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
    output: NetworkOutput = "velocity",
) -> Path:
    """x[i+1] = mean + std noise(i) at stochastic steps, the ODE step (Euler, DDIM) at the others.

    `sigmas` are alpha-bars where `output` is a DDPM model's.
    """
    if len(stochastic) != len(sigmas) - 1:
        raise ValueError(f"{len(stochastic)} marks for {len(sigmas) - 1} steps")
    states, found = [x], []
    for step in range(len(sigmas) - 1):
        v = velocity(x, step)
        chosen: TransitionKind = kind if stochastic[step] else "ode"
        drawn = step_transition(chosen, x, v, sigmas, step, eta=eta, variant=variant, output=output)
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
    output: NetworkOutput = "velocity",
) -> Transition:
    """One step of a schedule, in float32 at least; rollout and replay share it.

    A DDPM model has one family of steps, DDIM(eta); `ode` is its eta = 0.
    """
    work = torch.promote_types(torch.promote_types(x.dtype, velocity.dtype), torch.float32)
    levels = sigmas.tolist()
    if output != "velocity":
        return ddim_transition(
            x.to(work),
            velocity.to(work),
            levels[step],
            levels[step + 1],
            eta=0.0 if kind == "ode" else eta,
            prediction=output,
        )
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
