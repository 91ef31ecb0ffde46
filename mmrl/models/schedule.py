"""The noise levels that a pipeline's own scheduler would visit."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (diffusers types its own returns loosely)

from __future__ import annotations

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from jaxtyping import Float

from mmrl.diffusion.sampler import Schedule


def linear_levels(num_steps: int) -> Float[np.ndarray, " N"]:
    """1, 1 - 1/N .. 1/N: what pipelines of packed tokens hand their scheduler."""
    return np.linspace(1.0, 1 / num_steps, num_steps)


def own_schedule(
    scheduler: FlowMatchEulerDiscreteScheduler,
    num_steps: int,
    *,
    levels: Float[np.ndarray, " N"] | None,
    mu: float | None,
) -> Schedule:
    """The noise levels that the pipeline's scheduler visits.

    `levels` come before the shift, None takes the scheduler's own; `mu` is the logarithm of a shift
    that depends on the resolution, and only a scheduler of dynamic shifts reads it.
    """
    if scheduler.config.get("use_flow_sigmas"):
        levels = None
    scheduler.set_timesteps(num_steps, sigmas=levels, mu=mu)
    assert scheduler.sigmas is not None
    return Schedule.flow(scheduler.sigmas.double().cpu())


def shift_by_tokens(
    scheduler: FlowMatchEulerDiscreteScheduler,
    tokens: int,
    *,
    base_tokens: int = 256,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """Logarithm of the shift for so many tokens, on the line through the scheduler's two points.

    The numbers are what stands in for a key that its config lacks.
    """
    config = scheduler.config
    return calculate_shift(
        tokens,
        config.get("base_image_seq_len", base_tokens),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", base_shift),
        config.get("max_shift", max_shift),
    )
