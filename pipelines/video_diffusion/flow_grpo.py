"""Flow-GRPO (arXiv:2505.05470): a flow model's ODE as an SDE, a clipped ratio, a fixed anchor.

Its fast form trains a random window of 2 or 3 steps in the first half of the path:
`sampling: {trained_steps: random_window, trained_count: 2, window_stop: 5}`.
"""

from __future__ import annotations

from functools import partial

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.step_scales import TimestepWeighting, step_scales
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("flow_grpo")
class FlowGrpo(VideoPipelineConfig):
    """Flow-GRPO: align a flow-matching model with a noisy sampler and a fixed KL anchor."""

    pipeline: str = "flow_grpo"
    sampling: SamplingConfig = SamplingConfig(transition="flow", num_steps=10, eta=0.7, shift=3.0)
    timestep_weighting: TimestepWeighting | None = None
    """`tempflow` weighs a step by its noise, `sage` equalizes gradient norms; null: all alike."""
    clip: RatioClip = 1e-4
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.004))
    """The release's weight for Wan, on a KL that is true here (the release's lacks a delta)."""

    def build(self) -> Recipe:
        """The parts of Flow-GRPO."""
        policy = build_policy(self, self.sampling)
        if self.timestep_weighting:
            policy.scales = partial(
                step_scales,
                weighting=self.timestep_weighting,
                sampling=self.sampling,
                output=policy.model.output,
            )
        return build_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-4),
            max_advantage=self.max_advantage,
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
        )
