"""MixGRPO (arXiv:2507.21802): noise and training only inside a window that moves along the path.

A diff to Flow-GRPO: the other steps are the ODE's, the window of four steps moves on by one every
25 training steps, and there is no KL.
"""

from __future__ import annotations

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("mix_grpo")
class MixGrpo(VideoPipelineConfig):
    """MixGRPO: Flow-GRPO inside a sliding window of stochastic steps."""

    pipeline: str = "mix_grpo"
    sampling: SamplingConfig = SamplingConfig(
        transition="flow",
        num_steps=25,
        eta=0.7,
        shift=3.0,
        shared_first_noise=True,
        trained_steps="progressive",
        trained_count=4,
        window_hold=25,
    )
    clip: RatioClip = 1e-4
    max_advantage: MaxAdvantage = 5.0

    def build(self) -> Recipe:
        """The parts of MixGRPO."""
        return build_recipe(
            self,
            build_policy(self, self.sampling),
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-8),
            max_advantage=self.max_advantage,
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
        )
