"""DiffusionNFT (arXiv:2509.16117): learn on the forward process from good and bad samples.

No likelihood and any solver: finished videos are noised again, and the velocity is pulled toward
those of high reward and pushed off those of low. The EMA anchor samples, as in the release.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from mmrl.advantages import batch_scaled
from mmrl.objectives.nft import Nft
from mmrl.policies.matching import MatchingPolicy, generated
from mmrl.policies.video_config import GridConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import EmaAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, VideoPipelineConfig, build_policy, need_anchor


@pipelines.register("diffusion_nft")
class DiffusionNft(VideoPipelineConfig):
    """DiffusionNFT: likelihood-free alignment on the forward process."""

    pipeline: str = "diffusion_nft"
    sampling: GridConfig = GridConfig(num_steps=10, shift=3.0)
    num_levels: int = Field(default=9, ge=1)
    """Noise levels of the grid that each rollout is trained at."""
    beta: float = Field(default=1.0, gt=0)
    """How far the good and the bad velocity lie from the old one."""
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = TrustRegion(ema=EmaAnchor(coefficient=0.0, decay=0.5, ramp=0.001))
    """Coefficients of mean (v - v_anchor)^2; the release also has a fixed anchor of 1e-4."""

    def build(self) -> Recipe:
        """The parts of DiffusionNFT."""
        need_anchor(self, "ema", "the old policy that samples is an EMA of the new one")
        policy = MatchingPolicy(build_policy(self, self.sampling), generated, self.num_levels)
        recipe = build_recipe(
            self,
            policy,
            advantage=batch_scaled,
            objective=Nft(beta=self.beta, advantage_clip=self.max_advantage),
            max_advantage=self.max_advantage,
        )
        return replace(recipe, sample_from="ema")
