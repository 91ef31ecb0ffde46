"""SAGE-GRPO (Tencent Hunyuan): manifold-aware SDE, gradient equalizer, dual moving trust region.

A diff to Flow-GRPO: the exact integral of the same diffusion as noise, every step's loss scaled to
one gradient norm, and two moving anchors (periodic and stepwise) in the place of a fixed one.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.step_scales import step_scales
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import PeriodicAnchor, StepwiseAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy

DUAL_ANCHOR = TrustRegion(
    periodic=PeriodicAnchor(coefficient=1e-2, refresh_every=10),
    stepwise=StepwiseAnchor(coefficient=1e-3),
)
"""The paper's pair and its 1 : 0.1 proportion; its 1e-5 is numerically inert on a mean over D."""


@pipelines.register("sage_grpo")
class SageGrpo(VideoPipelineConfig):
    """SAGE-GRPO: align a video diffusion model with an exact SDE and a dual moving anchor."""

    pipeline: str = "sage_grpo"
    sampling: SamplingConfig = SamplingConfig(transition="sage", num_steps=20, eta=0.5)
    equalize: bool = True
    """Scale each step's loss to the median gradient norm of the steps that a run can train."""
    equalize_mean: Literal["none", "mean1"] = "none"
    """`mean1` divides the scales by their mean, so that they leave the learning rate alone."""
    clip: RatioClip = 1e-4
    """Half-width of the ratio's band; small since log-probs are means over latent elements."""
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = DUAL_ANCHOR

    def build(self) -> Recipe:
        """The parts of SAGE-GRPO."""
        policy = build_policy(self, self.sampling)
        if self.equalize:
            policy.scales = partial(
                step_scales,
                weighting="sage",
                sampling=self.sampling,
                output=policy.model.output,
                normalize=self.equalize_mean,
            )
        return build_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-6),
            max_advantage=self.max_advantage,
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
        )
