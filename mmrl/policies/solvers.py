"""Deterministic solvers of evaluation beyond the sampler's own steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmrl.config import ConfigError
from mmrl.diffusion.sampler import NetworkOutput
from mmrl.policies.video_model import Latents


def unipc(
    predict: Callable[[Latents, float], Latents],
    x: Latents,
    num_steps: int,
    shift: float | None,
    output: NetworkOutput,
) -> Latents:
    """UniPC of order 2 (arXiv:2302.04867) on the shifted grid, as diffusers has it."""
    from diffusers import UniPCMultistepScheduler

    if output != "velocity" or shift is None:
        raise ConfigError("unipc needs a flow model and a shift", key="sampling.solver")
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(num_steps, device=x.device)
    for timestep in scheduler.timesteps:
        found = predict(x, float(timestep))
        x = scheduler.step(found, timestep, x, return_dict=False)[0]
    assert isinstance(x, torch.Tensor)
    return x
