"""Flow-GRPO (arXiv:2505.05470): a flow model's ODE as an SDE, a clipped ratio, a fixed anchor."""

from __future__ import annotations

from typing import Literal

from mmrl.advantages import group_normalized
from mmrl.data.prompts import load_prompts
from mmrl.mixing import weighted_sum
from mmrl.objectives.grpo import Clip, Grpo
from mmrl.policies.lora import add_lora
from mmrl.policies.video_config import SamplingConfig, VideoConfig, build_video_policy
from mmrl.recipe import PipelineConfig, Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion


@pipelines.register("flow_grpo")
class FlowGrpo(PipelineConfig):
    """Flow-GRPO: align a flow-matching model with a noisy sampler and a fixed KL anchor."""

    pipeline: str = "flow_grpo"
    video: VideoConfig
    sampling: SamplingConfig = SamplingConfig(transition="flow", num_steps=10, eta=0.7, shift=3.0)
    clip: float = 1e-4
    max_advantage: float = 5.0
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.004))
    precision: Literal["float32", "bfloat16"] = "float32"

    def build(self) -> Recipe:
        """The parts of Flow-GRPO."""
        policy = build_video_policy(
            self.model,
            self.video,
            self.sampling,
            rows=self.train.rows,
            precision=self.precision,
            scales=None,
        )
        if self.lora:
            add_lora(policy.module, self.lora, seed=self.train.seed)
        return Recipe(
            policy=policy,
            prompts=load_prompts(self.prompts),
            group_size=self.group_size,
            rewards=self.rewards,
            combine=lambda scores, step: weighted_sum(scores, self.rewards.weights),
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-4).clamp(
                -self.max_advantage, self.max_advantage
            ),
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
            trust_region=self.trust_region,
        )
