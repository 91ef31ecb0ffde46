"""Multiplier of each denoising step's policy loss, from the noise levels of a run."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mmrl.diffusion.ddim import ddim_stds
from mmrl.diffusion.equalizer import Normalize, ddim_equalizer_scales, equalizer_scales
from mmrl.diffusion.sampler import NetworkOutput
from mmrl.diffusion.timestep_weights import mean_one, noise_level_weights
from mmrl.policies.video_config import SamplingConfig

TimestepWeighting = Literal["sage", "tempflow"]


def step_scales(
    levels: Float[Tensor, " N1"],
    *,
    weighting: TimestepWeighting,
    sampling: SamplingConfig,
    output: NetworkOutput,
    normalize: Normalize = "none",
) -> Float[Tensor, " N"]:
    """What each step's loss is multiplied with.

    `sage` brings all gradient norms to their median (SAGE-GRPO), `tempflow` weighs a step by its
    std, with a mean of 1 (TempFlow-GRPO, arXiv:2508.04324). Median and mean run over the steps that
    the run can train, so they are the same at every rollout. `output` is what the model predicts,
    `levels` are its alpha-bars where that is not the velocity.
    """
    kind, steps = sampling.transition, sampling.trainable_steps()
    if kind == "ddim":
        assert output != "velocity"
        if weighting == "tempflow":
            return mean_one(ddim_stds(levels, eta=sampling.eta), steps)
        return ddim_equalizer_scales(
            levels, eta=sampling.eta, prediction=output, normalize=normalize, steps=steps
        )
    given = {"eta": sampling.eta, "variant": sampling.variant, "steps": steps}
    if weighting == "tempflow":
        return noise_level_weights(kind, levels, **given)
    return equalizer_scales(kind, levels, **given, normalize=normalize)
