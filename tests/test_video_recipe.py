"""Choices of the video pipelines that a config can get wrong, and what they make of rewards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrl.config import ConfigError
from mmrl.objectives.nft import nft_loss
from mmrl.policies.video_model import TextOptions
from mmrl.train.loop import load_config
from mmrl.video_recipe import build_policy
from pipelines.video_diffusion.diffusion_dpo import preferred_first
from pipelines.video_diffusion.grpo_guard import inverse_lengths
from tests.tiny import shrunk_config

NEEDED = {
    "prdp": ("fixed", "log-ratios are measured against the pretrained model"),
    "diffusion_dpo": ("fixed", "errors are compared with the pretrained model's"),
    "diffusion_nft": ("ema", "the old policy that samples is an EMA of the new one"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_method_without_the_anchor_it_needs_says_why(name: str, tmp_path: Path) -> None:
    kind, why = NEEDED[name]
    config = load_config(shrunk_config(name, tmp_path, "trust_region={}"))
    with pytest.raises(ConfigError, match=rf"^trust_region\.{kind}: missing: {why}; a coefficient"):
        config.build()


def test_the_score_estimator_is_refused_for_a_second_update(tmp_path: Path) -> None:
    changes = ["estimator=score", "train.updates_per_rollout=2"]
    config = load_config(shrunk_config("ddpo", tmp_path, *changes))
    with pytest.raises(ConfigError, match=r"^train\.updates_per_rollout: .*use 1, or estimator"):
        config.build()


def test_an_encoder_that_nothing_is_cached_of_is_not_offloaded(tmp_path: Path) -> None:
    changes = ["text_cache=null", "offload_text_encoder=true"]
    with pytest.raises(ConfigError, match=r"^offload_text_encoder: .*text_cache: memory or disk$"):
        load_config(shrunk_config("flow_grpo", tmp_path, *changes))


def test_the_config_says_where_embeddings_lie_and_what_the_network_is_told(tmp_path: Path) -> None:
    changes = ["text_cache=disk", "offload_text_encoder=true"]
    config = load_config(shrunk_config("flow_grpo", tmp_path, *changes))
    assert build_policy(config, config.sampling).model.texts == TextOptions("disk", offload=True)
    config = load_config(shrunk_config("flow_grpo", tmp_path, "frame_rate=8"))
    with pytest.raises(ConfigError, match=r"^frame_rate: WanModel has no such number"):
        config.build()


def test_nft_divides_a_groups_deviation_by_the_std_of_the_whole_batch(tmp_path: Path) -> None:
    """Deviations -1 1 -2 2 have the std sqrt(2.5)."""
    config = load_config(shrunk_config("diffusion_nft", tmp_path))
    found = config.advantage(torch.tensor([[0.0, 2.0], [10.0, 14.0]]))
    expected = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]) / 2.5**0.5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_nft_leaves_an_unscored_sample_out_of_the_batchs_std(tmp_path: Path) -> None:
    """With it the deviations would be -1 1 0 0 -2 2, without -1 1 0 -2 2, of std sqrt(2)."""
    config = load_config(shrunk_config("diffusion_nft", tmp_path))
    rewards = torch.tensor([[0.0, 2.0], [torch.nan, 5.0], [10.0, 14.0]])
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0], [-2.0, 2.0]]) / 2**0.5
    torch.testing.assert_close(config.advantage(rewards), expected, rtol=1e-3, atol=0)


def test_nft_learns_nothing_false_from_groups_that_were_not_scored(tmp_path: Path) -> None:
    """Their advantage is 0, those of other groups are as without them, and the loss is finite."""
    config = load_config(shrunk_config("diffusion_nft", tmp_path))
    nan = torch.nan
    rewards = torch.tensor([[nan, nan], [0.0, 2.0], [3.0, nan]])
    found = config.advantage(rewards)
    assert found[0].tolist() == [0.0, 0.0] and found[2].tolist() == [0.0, 0.0]
    assert config.advantage(torch.full((2, 2), nan)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    current = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, _ = nft_loss(
        current,
        torch.zeros(6, 2, 3),
        torch.ones(6, 2, 3),
        torch.full((6, 2), 0.5),
        found.flatten(),
        torch.full((6, 2), 1 / 12),
        beta=config.beta,
        advantage_clip=config.max_advantage,
    )
    loss.backward()
    assert loss.isfinite() and current.grad is not None and current.grad.isfinite().all()


def test_dpo_prefers_the_first_of_a_pair_whatever_was_scored() -> None:
    rewards = torch.tensor([[0.1, 0.9], [torch.nan, 0.2]])
    assert preferred_first(rewards).tolist() == [[1.0, -1.0], [1.0, -1.0]]


@pytest.mark.parametrize("levels", [[1.0, 0.5, 0.25, 0.0], [0.0, 0.5, 0.75, 1.0]])
def test_guards_scales_are_inverse_lengths_of_mean_one(levels: list[float]) -> None:
    """Lengths 1/2, 1/4, 1/4, whether noise levels fall or alpha-bars rise."""
    found = inverse_lengths(torch.tensor(levels, dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.6, 1.2, 1.2])
