"""Diffusion-DPO (arXiv:2311.12908): fit preferred videos more, and rejected ones less, than before.

Offline: each prompt carries the files of a chosen and a rejected video. Both are noised alike, and
their matching errors are compared with the pretrained model's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.objectives.diffusion_dpo import DiffusionDpo as DpoObjective
from mmrl.policies.matching import MatchingPolicy
from mmrl.policies.recorded import recorded_pairs
from mmrl.policies.video_config import GridConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.video_recipe import VideoPipelineConfig, build_policy, need_anchor


@pipelines.register("diffusion_dpo")
class DiffusionDpo(VideoPipelineConfig):
    """Diffusion-DPO: learn from recorded pairs of a preferred and a rejected video."""

    normalizes_groups: ClassVar[bool] = False
    pipeline: str = "diffusion_dpo"
    group_size: int = 2
    sampling: GridConfig = GridConfig(num_steps=10, shift=3.0)
    num_levels: int = Field(default=1, ge=1)
    """Noise levels of the grid that each batch of pairs is compared at."""
    beta: float = Field(default=5000.0, gt=0)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.0))

    def build(self) -> Recipe:
        """The parts of Diffusion-DPO."""
        need_anchor(self, "fixed", "errors are compared with the pretrained model's")
        policy = MatchingPolicy(
            build_policy(self, self.sampling), recorded_pairs, self.num_levels, shared_noise=True
        )
        return build_recipe(
            self,
            policy,
            advantage=preferred_first,
            objective=DpoObjective(beta=self.beta),
        )


def preferred_first(rewards: Float[Tensor, "P 2"]) -> Float[Tensor, "P 2"]:
    """+1 for the first of a pair and -1 for the second, whatever a reward says of them."""
    return torch.tensor([1.0, -1.0]).expand_as(rewards)
