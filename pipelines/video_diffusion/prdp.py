"""PRDP (arXiv:2402.08714): regress log-ratios of whole paths on reward differences.

A pair of one prompt's samples has the loss max(d^2, clipped d^2), d the difference of their
log-ratios to the pretrained model minus that of their rewards / beta. The steps of a path are
coupled by the square; the trainer streams the gradient, so memory is that of one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.diffusion.plan import MIN_STD, StepPlan
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.objectives.prdp import Prdp as PrdpObjective
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.types import Turn
from mmrl.video_recipe import VideoPipelineConfig, build_policy, need_anchor


@pipelines.register("prdp")
class Prdp(VideoPipelineConfig):
    """PRDP: proximal reward difference prediction, a regression in a policy gradient's place."""

    normalizes_groups: ClassVar[bool] = False
    pipeline: str = "prdp"
    sampling: SamplingConfig = SamplingConfig(
        transition="flow", num_steps=10, eta=0.7, shift=3.0, shared_first_noise=True
    )
    """One first noise a group: with several the loss cannot reach 0 (`docs/errata.md`)."""
    beta: float = Field(default=3e-5, gt=0)
    """Temperature of the reward, in the units of a mean over elements and steps."""
    clip: float | None = Field(default=1e-4, gt=0)
    """How far a step's log-prob may drift from the rollout's; null: unclipped."""
    step_reduction: Literal["mean", "sum"] = "mean"
    pairs: Literal["strict", "all"] = "strict"
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.0))

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _some_step_has_a_log_ratio(self) -> Prdp:
        if self.sampling.shift is not None and self.sampling.transition != "ddim":
            self.plan(shifted_sigmas(self.sampling.num_steps, self.sampling.shift))
        return self

    def plan(self, levels: Float[Tensor, " N1"]) -> Callable[[Turn], StepPlan]:
        """The steps of `sampling` without those of a std below MIN_STD.

        ConfigError where a rollout could be left without a step.
        """
        sampling, stds = self.sampling, self.sampling.stds(levels)
        steps = sampling.trainable_steps()
        quiet = [step for step in steps if stds[step] < MIN_STD]
        moving = sampling.trained_steps == "progressive"
        fewest = 1 if moving else sampling.trained_count or len(steps)
        if len(quiet) >= fewest:
            raise ConfigError(
                f"step {quiet[0]} has a std of {stds[quiet[0]]:.2g}, and below {MIN_STD} a "
                "log-ratio is mostly rounding; raise it, or train other steps",
                key="sampling.eta",
            )
        return lambda turn: sampling.plan(turn).with_min_std(stds)

    def build(self) -> Recipe:
        """The parts of PRDP."""
        need_anchor(self, "fixed", "log-ratios are measured against the pretrained model")
        policy = build_policy(self, self.sampling)
        policy.plan = self.plan(policy.schedule(self.sampling.num_steps).levels)
        return build_recipe(
            self,
            policy,
            advantage=lambda rewards: rewards,
            objective=PrdpObjective(
                beta=self.beta,
                clip=self.clip,
                step_reduction=self.step_reduction,
                pairs=self.pairs,
            ),
        )
