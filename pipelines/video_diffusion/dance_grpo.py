"""DanceGRPO (arXiv:2505.07818): constant noise, one first noise a group, a part of the steps.

A diff to Flow-GRPO: S = eta^2 delta, the group shares its first noise, a random 60 % of the steps
is trained, the sample standard deviation, and no KL.
"""

from __future__ import annotations

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("dance_grpo")
class DanceGrpo(VideoPipelineConfig):
    """DanceGRPO: align a flow model with constant noise, one first noise a group and no KL."""

    pipeline: str = "dance_grpo"
    sampling: SamplingConfig = SamplingConfig(
        transition="dance",
        num_steps=16,
        eta=0.25,
        shift=5.0,
        shared_first_noise=True,
        trained_steps="random",
        trained_count=9,
    )
    """HunyuanVideo's values of the release; eta 0.3 for Wan and FLUX."""
    clip: RatioClip = 1e-4
    max_advantage: MaxAdvantage = 5.0

    def build(self) -> Recipe:
        """The parts of DanceGRPO."""
        return build_recipe(
            self,
            build_policy(self, self.sampling),
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-8),
            max_advantage=self.max_advantage,
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
        )
