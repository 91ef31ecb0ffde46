"""Sweet Spot Learning (arXiv:2601.22491): GRPO on rewards with tiers of closeness."""

from __future__ import annotations

from pydantic import Field, model_validator

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.recipe import Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm_policy, vlm_recipe


@pipelines.register("ssl")
class SweetSpot(VlmPipelineConfig):
    """Sweet Spot Learning: GRPO where a near miss earns more than a far one."""

    pipeline: str = "ssl"
    clip: float = Field(default=0.2, gt=0, lt=1)
    trust_region: TrustRegion = TrustRegion(fixed=FixedAnchor(coefficient=0.01))
    """k3 against the first policy with the default of EasyR1, the trainer that the paper names."""

    @model_validator(mode="after")  # pyright: ignore[reportArgumentType]
    def _one_reward_has_tiers(self) -> SweetSpot:
        trained = [name for name, weight in self.rewards.weights.items() if weight]
        if not any(name.startswith("ssl_") for name in trained):
            raise ConfigError(
                f"trains {', '.join(trained)}, which has no tiers; add ssl_click or ssl_grid",
                key="rewards",
            )
        return self

    def build(self) -> Recipe:
        """The parts of Sweet Spot Learning."""
        from mmrl.models.frames import check_frames

        policy = build_vlm_policy(self)
        check_frames(self.rewards.rewards, policy.model.processor)
        return vlm_recipe(
            self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-6),
            objective=Grpo({"token": Clip(self.clip, self.clip)}),
        )
