"""Flow-CPS (arXiv:2509.05952): steps that recombine clean estimate and noise, as DDIM does.

A diff to Flow-GRPO: `cps` steps (or `bridge`, which lets the noise of a step shrink with the step),
judged by their true density; the release leaves the variance out of its log-prob.
"""

from __future__ import annotations

from mmrl.advantages import group_normalized
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("flow_cps")
class FlowCps(VideoPipelineConfig):
    """Flow-CPS: Flow-GRPO on steps that keep the coefficients of data and noise."""

    pipeline: str = "flow_cps"
    sampling: SamplingConfig = SamplingConfig(transition="cps", num_steps=10, eta=0.7, shift=3.0)
    clip: RatioClip = 1e-4
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.004))

    def build(self) -> Recipe:
        """The parts of Flow-CPS."""
        return build_recipe(
            self,
            build_policy(self, self.sampling),
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-4),
            max_advantage=self.max_advantage,
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
        )
