"""AWM (arXiv:2509.25050): advantage-weighted matching on the forward process.

The matching error at a noised sample, read as a log-prob, takes the place of the path's in a
clipped policy gradient. Any solver samples.
"""

from __future__ import annotations

from pydantic import Field

from mmrl.advantages import group_normalized
from mmrl.objectives.awm import Awm as AwmObjective
from mmrl.objectives.clipped import Clip
from mmrl.policies.matching import MatchingPolicy, generated
from mmrl.policies.video_config import GridConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import EmaAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, VideoPipelineConfig, build_policy


@pipelines.register("awm")
class Awm(VideoPipelineConfig):
    """AWM: policy gradient whose log-prob is a matching error."""

    pipeline: str = "awm"
    sampling: GridConfig = GridConfig(num_steps=14, shift=3.0)
    num_levels: int = Field(default=6, ge=1)
    power: float = Field(default=0.25, gt=0)
    """Exponent of the matching error; 1 is the plain squared error."""
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = TrustRegion(ema=EmaAnchor(coefficient=1.0, decay=0.3, ramp=0.001))
    """Coefficients of mean (v - v_anchor)^2; the release has a fixed anchor of 1e-4 to 3e-3 too."""

    def build(self) -> Recipe:
        """The parts of AWM."""
        policy = MatchingPolicy(build_policy(self, self.sampling), generated, self.num_levels)
        return build_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-4),
            objective=AwmObjective(
                clip=Clip(1.0, 1.0),
                power=self.power,
                advantage_clip=self.max_advantage,
            ),
        )
