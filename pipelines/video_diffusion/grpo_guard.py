"""GRPO-Guard (arXiv:2510.22319): a ratio of mean 1 and one spread at every noise level.

A diff to Flow-GRPO: the log-ratio is multiplied by the step's std and freed of its negative mean,
so that the clip bites alike everywhere; every step's loss is divided by its length.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mmrl.advantages import group_normalized
from mmrl.diffusion.timestep_weights import mean_one
from mmrl.objectives.clipped import Clip
from mmrl.objectives.guard import Guard
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("grpo_guard")
class GrpoGuard(VideoPipelineConfig):
    """GRPO-Guard: Flow-GRPO with a regulated clip against over-optimisation."""

    pipeline: str = "grpo_guard"
    sampling: SamplingConfig = SamplingConfig(transition="flow", num_steps=10, eta=0.7, shift=3.0)
    clip: RatioClip = 2e-6
    max_advantage: MaxAdvantage = 5.0
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.004))

    def build(self) -> Recipe:
        """The parts of GRPO-Guard."""
        return build_recipe(
            self,
            build_policy(self, self.sampling, scales=inverse_lengths),
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-4),
            max_advantage=self.max_advantage,
            objective=Guard(Clip(self.clip, self.clip)),
        )


def inverse_lengths(sigmas: Float[Tensor, " N1"]) -> Float[Tensor, " N"]:
    """1 / |sigma - sigma'|, brought to mean 1 so that the learning rate keeps its meaning.

    The levels of a DDPM model are alpha-bars, which rise.
    """
    return mean_one(1 / (sigmas[:-1] - sigmas[1:]).abs())
