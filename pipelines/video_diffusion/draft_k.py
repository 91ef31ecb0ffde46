"""DRaFT-K (arXiv:2309.17400): the reward's own gradient through the last K steps of the sampler.

For rewards that are differentiable in the pixels (`motion_direction`, `smoothness`). K = 1 with few
steps before it is ReFL's choice; there is no KL, so stop early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mmrl.config import ConfigError
from mmrl.objectives.score_ascent import ScoreAscent
from mmrl.policies.backprop import BackpropPolicy
from mmrl.policies.video_config import GridConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.types import VideoSample
from mmrl.video_recipe import VideoPipelineConfig, build_policy


@pipelines.register("draft_k")
class DraftK(VideoPipelineConfig):
    """DRaFT-K: back-propagate a differentiable reward through the end of the sampler."""

    normalizes_groups: ClassVar[bool] = False
    pipeline: str = "draft_k"
    sampling: GridConfig = GridConfig(num_steps=10, shift=3.0)
    last_steps: int = Field(default=1, ge=1)
    """K: the steps that gradients flow through."""

    def build(self) -> Recipe:
        """The parts of DRaFT-K."""
        if self.last_steps > self.sampling.num_steps:
            raise ConfigError(f"there are {self.sampling.num_steps} steps", key="last_steps")
        if self.trust_region.anchors():
            raise ConfigError("a reward's gradient has no KL to an anchor", key="trust_region")
        self.rewards.check_differentiable()
        policy = build_policy(self, self.sampling)
        return build_recipe(
            self,
            BackpropPolicy(policy, self.score, self.last_steps),
            advantage=torch.zeros_like,
            objective=ScoreAscent(),
        )

    def score(self, samples: Sequence[VideoSample]) -> Float[Tensor, " B"]:
        """The weighted sum of the trained rewards, with gradients."""
        return self.rewards.differentiable(samples)
