"""SAGE-GRPO (Tencent Hunyuan): manifold-aware SDE, gradient equalizer, dual moving trust region.

A diff to Flow-GRPO: the exact integral of the same diffusion as noise, every step's loss scaled to
one gradient norm, and two moving anchors (periodic and stepwise) in the place of a fixed one.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from mmrl.advantages import group_normalized
from mmrl.data.prompts import load_prompts
from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.mixing import weighted_sum
from mmrl.objectives.grpo import Clip, Grpo
from mmrl.policies.lora import add_lora
from mmrl.policies.video_config import SamplingConfig, VideoConfig, build_video_policy
from mmrl.recipe import PipelineConfig, Recipe, pipelines
from mmrl.trust_region.schedule import PeriodicAnchor, StepwiseAnchor, TrustRegion

DUAL_ANCHOR = TrustRegion(
    periodic=PeriodicAnchor(coefficient=1e-2, refresh_every=10),
    stepwise=StepwiseAnchor(coefficient=1e-3),
)
"""The paper's pair and its 1 : 0.1 proportion; its 1e-5 is numerically inert on a mean over D."""


@pipelines.register("sage_grpo")
class SageGrpo(PipelineConfig):
    """SAGE-GRPO: align a video diffusion model with an exact SDE and a dual moving anchor."""

    pipeline: str = "sage_grpo"
    video: VideoConfig
    sampling: SamplingConfig = SamplingConfig(transition="sage", num_steps=20, eta=0.5)
    equalize: bool = True
    """Scale each step's loss to the median gradient norm."""
    clip: float = 1e-4
    """Half-width of the ratio's band; small since log-probs are means over latent elements."""
    max_advantage: float = 5.0
    trust_region: TrustRegion = DUAL_ANCHOR
    precision: Literal["float32", "bfloat16"] = "float32"

    def build(self) -> Recipe:
        """The parts of SAGE-GRPO."""
        equalizer = partial(
            equalizer_scales,
            self.sampling.transition,
            eta=self.sampling.eta,
            variant=self.sampling.variant,
        )
        policy = build_video_policy(
            self.model,
            self.video,
            self.sampling,
            rows=self.train.rows,
            precision=self.precision,
            scales=equalizer if self.equalize else None,
        )
        if self.lora:
            add_lora(policy.module, self.lora, seed=self.train.seed)
        return Recipe(
            policy=policy,
            prompts=load_prompts(self.prompts),
            group_size=self.group_size,
            rewards=self.rewards,
            combine=lambda scores, step: weighted_sum(scores, self.rewards.weights),
            advantage=lambda rewards: group_normalized(rewards, std="population", eps=1e-6).clamp(
                -self.max_advantage, self.max_advantage
            ),
            objective=Grpo({"denoise": Clip(self.clip, self.clip)}),
            trust_region=self.trust_region,
        )
