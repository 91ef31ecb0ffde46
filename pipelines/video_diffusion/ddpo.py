"""DDPO (arXiv:2305.13301): policy gradient over denoising steps, by score function or by ratio.

`estimator: ratio` is DDPO-IS, several updates on a rollout with a clip; `score` is DDPO-SF, one.
Advantages use the prompt's own G samples in the place of the release's buffer of past ones.
"""

from __future__ import annotations

from typing import Literal

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.reinforce import Reinforce
from mmrl.policies.video_config import SamplingConfig
from mmrl.recipe import Recipe, build_recipe, pipelines
from mmrl.video_recipe import MaxAdvantage, RatioClip, VideoPipelineConfig, build_policy


@pipelines.register("ddpo")
class Ddpo(VideoPipelineConfig):
    """DDPO: the first policy gradient on diffusion models, with or without a clipped ratio."""

    pipeline: str = "ddpo"
    sampling: SamplingConfig = SamplingConfig(transition="flow", num_steps=10, eta=0.7, shift=3.0)
    """The paper's sampler is DDIM with eta 1: `transition: ddim` for models that predict noise."""
    estimator: Literal["ratio", "score"] = "ratio"
    clip: RatioClip = 1e-4
    max_advantage: MaxAdvantage = 5.0

    def build(self) -> Recipe:
        """The parts of DDPO."""
        for key in ("updates_per_rollout", "minibatches"):
            if self.estimator == "score" and getattr(self.train, key) > 1:
                raise ConfigError(
                    "the score-function estimator is right for the policy that sampled only; "
                    "use 1, or estimator: ratio",
                    key=f"train.{key}",
                )
        clip = Grpo({"denoise": Clip(self.clip, self.clip)})
        return build_recipe(
            self,
            build_policy(self, self.sampling),
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-6),
            max_advantage=self.max_advantage,
            objective=clip if self.estimator == "ratio" else Reinforce(),
        )
