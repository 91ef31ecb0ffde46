"""HyLaR with DePO (arXiv:2604.20328): tokens and latents, each with its own clip and KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mmrl.advantages import group_normalized
from mmrl.config import ConfigError
from mmrl.objectives.clipped import Clip
from mmrl.objectives.depo import ReleasedDepo
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.latent_report import ReportedDepo
from mmrl.ops import vmf
from mmrl.recipe import Objective, Recipe, pipelines
from mmrl.trust_region.schedule import FixedAnchor, TrustRegion
from mmrl.vlm_recipe import VlmPipelineConfig, build_vlm, vlm_recipe

RELEASED_KAPPA = 0.01
LATENT_FACTOR = 1.0
"""A latent's log-prob is its whole log density, not a mean over its D directions: one draw on the
sphere is one event, whose scale is kappa alone. The paper's ratio, clip and KL weight are of that
size, so they carry over times 1."""
REPETITIVE = 0.5
"""Above this score of the reward `repetition` the accuracy counts as -1, as in the release."""


@pipelines.register("hylar")
class Hylar(VlmPipelineConfig):
    """HyLaR / DePO: a VLM that thinks in latents between its words, both trained together."""

    pipeline: str = "hylar"
    temperature: float = Field(default=0.9, gt=0)
    weighting: Literal["sequence", "decision", "length"] = "decision"
    max_new_tokens: int = Field(default=2048, ge=1)
    max_latents: int = Field(default=16, ge=1)
    """Latents of one span; its end is then written without a choice."""
    latent_sampling: Literal["vmf", "mode"] = "vmf"
    """`vmf` draws each latent. `mode` feeds the state itself: then latents have no on-policy
    gradient, and only drift between updates on one rollout gives them one."""
    mean_cosine: float = Field(default=0.99, gt=0, lt=1)
    """Mean cosine of a drawn latent to its state; sets kappa at the model's width."""
    kappa: float | None = Field(default=None, gt=0)
    """Concentration itself, in the place of `mean_cosine` (the paper's 0.01 is next to none)."""
    trained_stops: bool = True
    """Whether going on with a span is a decision in the loss, as ending it always is."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.28, gt=0)
    latent_clip: float = Field(default=0.05, gt=0, lt=1)
    clip_dual: float | None = Field(default=None, gt=1)
    """The release's bound of 3 on the ratio of bad actions; null: none, as in the paper."""
    latent_weight: float = Field(default=0.5, ge=0)
    """Factor of the latents' policy loss; 0 trains tokens alone."""
    trust_region: TrustRegion = TrustRegion(
        fixed=FixedAnchor(coefficient=0.01, by_kind={"latent": 0.005})
    )
    """k3 for tokens; the closed form, A_d(kappa) included, for latents."""
    variant: Literal["fixed", "released"] = "fixed"
    """`released`: kappa <h, z> without unit vectors and one entry late, and its stand-in for a
    KL, weighed by `trust_region.fixed.by_kind.latent`."""

    @model_validator(mode="after")
    def _latents_can_be_thought(self):
        if self.max_latents + 2 > self.max_new_tokens:
            raise ConfigError(
                f"a span of {self.max_latents} latents with its start and end does not fit in "
                f"{self.max_new_tokens} positions; raise it",
                key="max_new_tokens",
            )
        if self.rollout_engine == "vllm":
            raise ConfigError("vLLM writes no latents; use transformers", key="rollout_engine")
        if self.gradient_checkpointing:
            raise ConfigError(
                "a replay with latents keeps its activations; lower train.rows for memory",
                key="gradient_checkpointing",
            )
        if self.variant == "released":
            self._check_released()
        return self

    def _check_released(self) -> None:
        if self.latent_sampling != "mode":
            raise ConfigError(
                "the release draws no latents; variant released needs mode", key="latent_sampling"
            )
        others = [kind for kind in self.trust_region.anchors() if kind != "fixed"]
        if others:
            raise ConfigError(
                "variant released has one anchor, the fixed one", key=f"trust_region.{others[0]}"
            )
        self._released_pull()

    def _released_pull(self) -> float:
        """Weight of the release's stand-in for a KL."""
        fixed = self.trust_region.fixed
        pull = fixed.of_kind("latent") if fixed else None
        if pull is None:
            return 0.0
        if not isinstance(pull, int | float):
            raise ConfigError(
                "variant released needs a number here", key="trust_region.fixed.by_kind.latent"
            )
        return float(pull)

    def build(self) -> Recipe:
        """The parts of HyLaR."""
        from mmrl.policies.latent_vlm import LatentVlmPolicy

        model = build_vlm(self)
        policy = LatentVlmPolicy(
            model,
            max_new_tokens=self.max_new_tokens,
            rows=self.train.rows,
            kappa=self._kappa(model.head.shape[1]),
            max_latents=self.max_latents,
            latent_sampling=self.latent_sampling,
            latent_weight=LATENT_FACTOR * self.latent_weight,
            trained_stops=self.trained_stops,
            variant=self.variant,
            temperature=self.temperature,
            eval_temperature=self.eval_temperature,
            prompt_template=self.prompt_template or "{question}",
            weighting=self.weighting,
        )
        weights = self.rewards.weights
        return vlm_recipe(
            self._without_latent_kl() if self.variant == "released" else self,
            policy,
            advantage=lambda rewards: group_normalized(rewards, std="sample", eps=1e-6),
            objective=self._objective(),
            combine=lambda scores, step: self.mixing.combine(
                punish_repetition(scores), weights, step
            ),
        )

    def _kappa(self, width: int) -> float:
        if self.kappa is not None:
            return self.kappa
        if self.variant == "released":
            return RELEASED_KAPPA
        return vmf.concentration(self.mean_cosine, width)

    def _objective(self) -> Objective:
        surrogate = Grpo(
            {
                "token": Clip(self.clip_low, self.clip_high, self.clip_dual),
                "latent": Clip(self.latent_clip, self.latent_clip, self.clip_dual),
            }
        )
        released = self.variant == "released"
        objective = ReleasedDepo(surrogate, self._released_pull()) if released else surrogate
        return ReportedDepo(objective, self.train.prompts_per_step * self.group_size)

    def _without_latent_kl(self) -> VlmPipelineConfig:
        """The config whose anchor pulls on tokens alone: the objective holds the rest."""
        fixed = self.trust_region.fixed
        if fixed is None:
            return self
        kinds = {**fixed.by_kind, "latent": None}
        region = self.trust_region.model_copy(
            update={"fixed": fixed.model_copy(update={"by_kind": kinds})}
        )
        return self.model_copy(update={"trust_region": region})


def punish_repetition(
    scores: Mapping[str, Float[Tensor, "P G"]],
) -> dict[str, Float[Tensor, "P G"]]:
    """The scores with accuracy -1 where `repetition`, if it is watched, is above REPETITIVE."""
    found = dict(scores)
    if "repetition" in found and "accuracy" in found:
        repetitive = found["repetition"] > REPETITIVE
        found["accuracy"] = torch.where(repetitive, -1.0, found["accuracy"])
    return found
