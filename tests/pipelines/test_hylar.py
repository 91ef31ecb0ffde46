"""What a HyLaR config chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.config import apply_overrides, read_yaml
from mmrl.objectives.clipped import Clip
from mmrl.objectives.depo import ReleasedDepo
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.latent_report import ReportedDepo
from mmrl.ops import vmf
from mmrl.policies.latent_vlm import LatentVlmPolicy
from mmrl.recipe import Recipe
from mmrl.train.loop import load_config

TINY = read_yaml(Path("configs/hylar/tiny.yaml"))


def build(*changes: str) -> Recipe:
    return load_config(apply_overrides(TINY, list(changes))).build()


def policy_of(recipe: Recipe) -> LatentVlmPolicy:
    assert isinstance(recipe.policy, LatentVlmPolicy)
    return recipe.policy


def objective_of(recipe: Recipe) -> Grpo | ReleasedDepo:
    assert isinstance(recipe.objective, ReportedDepo)
    return recipe.objective.objective


def test_the_paper_is_a_choice_of_values() -> None:
    """Mode, kappa 0.01, a pull of tokens to the start and of latents to the rollout's policy."""
    recipe = build(
        *("latent_sampling=mode", "kappa=0.01", "trained_stops=false", "latent_clip=0.05"),
        "latent_weight=0.5",
        "trust_region.fixed.by_kind={latent: null}",
        "trust_region.periodic={refresh_every: 2, coefficient: 0.005, by_kind: {token: null}}",
    )
    policy = policy_of(recipe)
    assert (policy.kappa, policy.latent_sampling, policy.trained_stops) == (0.01, "mode", False)
    assert policy.latent_weight == 0.5
    surrogate = Grpo({"token": Clip(0.2, 0.28), "latent": Clip(0.05, 0.05)})
    assert objective_of(recipe) == surrogate
    anchors = recipe.trust_region.anchors()
    assert anchors["fixed"].of_kind("latent") is None
    assert anchors["periodic"].of_kind("token") is None
    assert anchors["periodic"].of_kind("latent") == 0.005


def test_a_mean_cosine_sets_kappa_at_the_models_width() -> None:
    policy = policy_of(build("mean_cosine=0.9"))
    width = policy.model.head.shape[1]
    assert policy.kappa == vmf.concentration(0.9, width)


def test_the_release_has_its_own_objective_and_no_latent_kl() -> None:
    recipe = build("variant=released", "latent_sampling=mode", "clip_dual=3", "latent_clip=0.1")
    assert policy_of(recipe).kappa == 0.01
    objective = objective_of(recipe)
    assert isinstance(objective, ReleasedDepo)
    assert objective.pull == pytest.approx(1e-4)
    fixed = recipe.trust_region.fixed
    assert fixed is not None and fixed.of_kind("latent") is None
    assert fixed.of_kind("token") == 0.01


def test_the_temperature_of_evaluation_reaches_the_policy() -> None:
    assert policy_of(build()).eval_temperature == 0
    assert policy_of(build("eval_temperature=0.7")).eval_temperature == 0.7
