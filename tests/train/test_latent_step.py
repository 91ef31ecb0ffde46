"""HyLaR through the real trainer: on-policy exactness, cuts, KL, gradients, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mmrl.config import ConfigError
from mmrl.recipe import Recipe
from mmrl.train.accumulate import Replayed, accumulate
from mmrl.train.checkpoint import checkpoints
from mmrl.train.loop import initial_state, load_config, resume, start
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.trust_region.weights import trainable
from mmrl.types import Rollout
from tests.tiny import train_section, write_pictures
from tests.tiny_latent import latent_policy

RANKS = Ranks(Accelerator(cpu=True))
ADVANTAGES = torch.tensor([1.0, -1.0, 0.5, -0.5])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose answers open and end spans."""
    folder = tmp_path_factory.mktemp("model")
    policy, _ = latent_policy(tmp_path_factory.mktemp("pictures"))
    policy.save_pretrained(folder)
    return folder


INK = """
import torch

from mmrl.reward import RewardConfig


class Ink(RewardConfig):
    def __call__(self, samples):
        return torch.tensor([float(sum(map(ord, s.text)) % 7) for s in samples])
"""
"""A reward that differs between any two answers of noise."""


def tree(model: Path, output: Path, steps: int = 2, **changes: Any) -> dict[str, Any]:
    """Two prompts, two updates a rollout; `changes` are the method's own keys."""
    pictures = write_pictures(output.parent / "data")
    ink = output.parent / "ink.py"
    ink.write_text(INK, encoding="utf-8")
    made = {
        "pipeline": "hylar",
        "output": str(output),
        "model": str(model),
        "prompts": str(pictures),
        "group_size": 2,
        "max_new_tokens": 10,
        "max_latents": 3,
        "mean_cosine": 0.8,
        "temperature": 0.7,
        "rewards": {"ink": {"path": f"{ink}:Ink", "weight": 1.0}},
        "trust_region": {
            "fixed": {"coefficient": 0.1, "by_kind": {"latent": 0.05}},
        },
        "train": train_section(steps, optimizer={"lr": 1e-4}),
    }
    return {**made, **changes}


def make(model: Path, folder: Path, **changes: Any) -> tuple[Recipe, TrainState, Any]:
    config = load_config(tree(model, folder / "run", **changes))
    recipe = config.build()
    return recipe, initial_state(recipe, config.train), config.train


def roll(recipe: Recipe, state: TrainState) -> Rollout:
    return recipe.policy.rollout(state.stream.take(2), recipe.group_size, [0, 1])


def gradients(recipe: Recipe) -> dict[str, torch.Tensor]:
    weights = trainable(recipe.policy.module)
    found = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    recipe.policy.module.zero_grad()
    return found


def test_the_first_update_has_ratio_exactly_1_and_kl_exactly_0(model: Path, tmp_path: Path) -> None:
    recipe, state, _ = make(model, tmp_path)
    found = accumulate(recipe, state, roll(recipe, state), ADVANTAGES, Replayed(), 0).metrics
    assert found["ratio/deviation"] == 0.0
    assert found["clip_fraction/token"] == found["clip_fraction/latent"] == 0.0
    assert found["kl/fixed/token"] == found["kl/fixed/latent"] == 0.0
    assert found["ratio/latent"] == pytest.approx(1.0, abs=1e-6)
    assert found["rollout/log_prob_gap"] < 1e-4


def test_on_policy_latents_alone_move_the_weights_and_modes_do_not(
    model: Path, tmp_path: Path
) -> None:
    """The token side is silenced by weights of 0."""
    norms = {}
    for sampling in ("vmf", "mode"):
        recipe, state, _ = make(model, tmp_path, latent_sampling=sampling, trust_region={})
        rollout = roll(recipe, state)
        rollout.weights["token"].zero_()  # pyright: ignore[reportAttributeAccessIssue]
        accumulate(recipe, state, rollout, ADVANTAGES, Replayed(), 0)
        norms[sampling] = max(g.abs().max().item() for g in gradients(recipe).values())
    assert norms["vmf"] > 1e-2
    assert norms["mode"] < 1e-4 * norms["vmf"]


def test_cutting_a_batch_leaves_the_gradient(model: Path, tmp_path: Path) -> None:
    recipe, state, _ = make(model, tmp_path)
    rollout = roll(recipe, state)
    accumulate(recipe, state, rollout, ADVANTAGES, Replayed(), 0)
    whole = gradients(recipe)
    for part in (slice(0, 2), slice(2, 4)):
        accumulate(recipe, state, rollout.rows(part), ADVANTAGES[part], Replayed(), part.start)
    cut = gradients(recipe)
    assert whole.keys() == cut.keys()
    scale = max(value.abs().max() for value in whole.values())
    for name in whole:
        torch.testing.assert_close(cut[name] / scale, whole[name] / scale, atol=2e-5, rtol=1e-4)


def test_after_an_update_both_kls_are_above_0_and_each_has_its_coefficient(
    model: Path, tmp_path: Path
) -> None:
    recipe, state, config = make(model, tmp_path)
    found = train_step(recipe, state, config, RANKS)
    assert found["kl/fixed/token"] > 0
    assert found["kl/fixed/latent"] > 0
    assert found["ratio/deviation"] > 0
    assert found["coefficient/fixed/token"] == 0.1
    assert found["coefficient/fixed/latent"] == 0.05
    assert found["skipped_update"] == 0.0


def test_a_kind_without_a_coefficient_has_no_kl(model: Path, tmp_path: Path) -> None:
    region = {"fixed": {"coefficient": 0.1, "by_kind": {"latent": None}}}
    recipe, state, config = make(model, tmp_path, trust_region=region)
    found = train_step(recipe, state, config, RANKS)
    assert "kl/fixed/token" in found
    assert "kl/fixed/latent" not in found


def test_a_weight_of_0_leaves_the_slope_of_tokens_alone(model: Path, tmp_path: Path) -> None:
    """alpha 0 without a KL is GRPO on tokens: silencing the latents changes nothing."""
    recipe, state, _ = make(model, tmp_path, latent_weight=0.0, trust_region={})
    rollout = roll(recipe, state)
    accumulate(recipe, state, rollout, ADVANTAGES, Replayed(), 0)
    with_latents = gradients(recipe)
    rollout.weights["latent"].zero_()  # pyright: ignore[reportAttributeAccessIssue]
    accumulate(recipe, state, rollout, ADVANTAGES, Replayed(), 0)
    without = gradients(recipe)
    assert all(torch.equal(with_latents[name], without[name]) for name in without)


def test_every_step_tells_how_the_latents_stand(model: Path, tmp_path: Path) -> None:
    """The modes' cosine of 1 is the alignment of rollout and replay; drawn ones are near 0.8."""
    changes = {"train": train_section(1, optimizer={"lr": 1e-4}, updates_per_rollout=1)}
    found = {}
    for sampling in ("mode", "vmf"):
        recipe, state, config = make(
            model, tmp_path / sampling, latent_sampling=sampling, **changes
        )
        found[sampling] = train_step(recipe, state, config, RANKS)
        assert found[sampling]["latent/ratio_lowest"] == pytest.approx(1, abs=1e-6)
        assert found[sampling]["latent/ratio_highest"] == pytest.approx(1, abs=1e-6)
        assert 0 < found[sampling]["latent/spans"] <= 3
        assert 1 <= found[sampling]["latent/per_span"] <= 3
        assert found[sampling]["latent/state_norm"] > 0
    assert found["mode"]["latent/cosine_lowest"] == pytest.approx(1, abs=1e-6)
    assert found["vmf"]["latent/cosine"] == pytest.approx(0.8, abs=0.05)
    assert found["vmf"]["latent/cosine_lowest"] < found["vmf"]["latent/cosine"]


def test_the_released_variant_trains_with_its_own_pull(model: Path, tmp_path: Path) -> None:
    recipe, state, config = make(model, tmp_path, variant="released", latent_sampling="mode")
    found = train_step(recipe, state, config, RANKS)
    assert found["skipped_update"] == 0.0
    assert "latent_pull" in found
    assert "kl/fixed/latent" not in found
    assert found["kl/fixed/token"] >= 0


def test_a_run_that_is_cut_and_resumed_ends_at_the_same_bits(model: Path, tmp_path: Path) -> None:
    """Cut after step 2 of 3, with a periodic anchor that moves in the middle of a rollout."""
    region = {
        "fixed": {"coefficient": 0.1, "by_kind": {"latent": 0.05}},
        "periodic": {
            "refresh_every": 3,
            "coefficient": 0.01,
            "by_kind": {
                "latent": {
                    "kind": "proportional",
                    "initial": 0.01,
                    "target": 1e-3,
                    "horizon": 16,
                }
            },
        },
    }
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(load_config(tree(model, whole, steps=3, trust_region=region)))
    shorter = tree(model, cut, steps=2, trust_region=region)
    start(load_config(shorter))
    written = (cut / "config.yaml").read_text("utf-8")
    (cut / "config.yaml").write_text(written.replace("steps: 2\n", "steps: 3\n"), "utf-8")
    resume(cut)
    ours, theirs = (checkpoints(run / "checkpoints")[-1] for run in (whole, cut))
    assert ours.name == theirs.name == "step-000003"
    for name in ("weights", "anchor-fixed", "anchor-periodic"):
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        assert all(a[key].equal(b[key]) for key in a), name
    assert (ours / "state.json").read_text() == (theirs / "state.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_latents": 9}, "max_new_tokens: a span of 9 latents .* does not fit in 10"),
        ({"max_latents": 0}, "max_latents: expected .*greater than or equal to 1, got 0"),
        ({"kappa": 0.0}, "kappa: expected greater than 0, got 0"),
        ({"mean_cosine": 1.0}, "mean_cosine: expected less than 1, got 1"),
        ({"clip_dual": 1.0}, "clip_dual: expected greater than 1, got 1"),
        ({"variant": "released"}, "latent_sampling: the release draws no latents"),
        ({"variant": "relesed"}, "variant: no such choice: 'relesed'; did you mean 'released'"),
        ({"rollout_engine": "vllm"}, "rollout_engine: vLLM writes no latents"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: a replay with latents"),
        (
            {
                "variant": "released",
                "latent_sampling": "mode",
                "trust_region": {"periodic": {"coefficient": 0.1}},
            },
            "trust_region.periodic: variant released has one anchor",
        ),
        (
            {
                "variant": "released",
                "latent_sampling": "mode",
                "trust_region": {
                    "fixed": {
                        "coefficient": 0.1,
                        "by_kind": {"latent": {"kind": "dual_ascent", "target": 1, "rate": 1}},
                    }
                },
            },
            "trust_region.fixed.by_kind.latent: variant released needs a number",
        ),
    ],
)
def test_a_mistake_in_the_config_is_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(tree(tmp_path / "model", tmp_path / "run", **changes))


def test_a_model_without_a_latent_cold_start_is_refused(tmp_path: Path) -> None:
    config = load_config(tree(Path("assets/tiny-qwen2_5_vl"), tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"model: its tokenizer has no .* cold start first"):
        config.build()
