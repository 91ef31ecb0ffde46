"""Choices of the video pipelines that a config can get wrong, and what they make of rewards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mmrl.advantages import batch_normalized, group_normalized
from mmrl.config import ConfigError
from mmrl.objectives.nft import nft_loss
from mmrl.policies.video_model import TextOptions
from mmrl.train.loop import load_config
from mmrl.video_recipe import build_policy
from pipelines.video_diffusion.diffusion_dpo import preferred_first
from pipelines.video_diffusion.grpo_guard import inverse_lengths
from tests.tiny import shrunk_config
from tests.toy_video import PROMPTS

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


@pytest.mark.parametrize("section", ["video", "eval_video"])
@pytest.mark.parametrize(
    ("key", "size", "nearest"),
    [
        *(("num_frames", 6, 5), ("num_frames", 2, 1), ("num_frames", 8, 9)),
        *(("width", 18, 16), ("height", 20, 16), ("height", 31, 32)),
    ],
)
def test_a_size_that_wan_would_round_is_refused_by_its_key(
    section: str, key: str, size: int, nearest: int, tmp_path: Path
) -> None:
    whole = "{num_frames: 5, height: 16, width: 16, max_sequence_length: 8}"
    changes = [f"eval_video={whole}", f"{section}.{key}={size}"]
    config = load_config(shrunk_config("flow_grpo", tmp_path, *changes))
    with pytest.raises(ConfigError, match=rf"^{section}\.{key}: .*{size}.*; try {nearest}$"):
        build_policy(config, config.sampling)


@pytest.mark.parametrize("section", ["video", "eval_video"])
def test_a_wrong_size_is_told_before_any_weight_is_read(section: str, tmp_path: Path) -> None:
    """From config files alone: the folder has no weights, and only a right size misses them."""
    folder = tmp_path / "model"
    shutil.copytree("assets/tiny-wan", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    whole = "{num_frames: 5, height: 16, width: 16, max_sequence_length: 8}"
    changes = [f"model={folder}", f"eval_video={whole}"]
    wrong = load_config(shrunk_config("flow_grpo", tmp_path, *changes, f"{section}.num_frames=6"))
    with pytest.raises(ConfigError, match=rf"^{section}\.num_frames: .*got 6; try 5$"):
        wrong.build()
    with pytest.raises(ConfigError, match=r"^model: .*no file named"):
        load_config(shrunk_config("flow_grpo", tmp_path, *changes)).build()


def advantage_of(name: str, tmp_path: Path, *changes: str):
    """What a method makes of mixed rewards."""
    return load_config(shrunk_config(name, tmp_path, *changes)).build().advantage


def test_nft_divides_a_groups_deviation_by_the_std_of_all_rewards(tmp_path: Path) -> None:
    """Rewards 0 2 10 14 have the variance 32.75; 2 / sqrt(32.75) is cut to 0.3."""
    advantage = advantage_of("diffusion_nft", tmp_path, "max_advantage=0.3")
    found = advantage(torch.tensor([[0.0, 2.0], [10.0, 14.0]]))
    one = 1 / 32.75**0.5
    expected = torch.tensor([[-one, one], [-0.3, 0.3]])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_nft_learns_nothing_false_from_groups_that_were_not_scored(tmp_path: Path) -> None:
    """Their advantage is 0, those of other groups are as without them, and the loss is finite."""
    config = load_config(shrunk_config("diffusion_nft", tmp_path))
    advantage, nan = config.build().advantage, torch.nan
    rewards = torch.tensor([[nan, nan], [0.0, 2.0], [3.0, nan]])
    found = advantage(rewards)
    assert found[0].tolist() == [0.0, 0.0] and found[2].tolist() == [0.0, 0.0]
    assert advantage(torch.full((2, 2), nan)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
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


@pytest.mark.parametrize("name", ["prdp", "diffusion_dpo", "draft_k"])
def test_gdpo_is_refused_where_advantages_are_not_normalized(name: str, tmp_path: Path) -> None:
    message = rf"^mixing\.kind: gdpo ends in .*those of '{name}' are not; use weighted_sum$"
    with pytest.raises(ConfigError, match=message):
        load_config(shrunk_config(name, tmp_path, "mixing.kind=gdpo"))


CUT = ["sage_grpo", "flow_grpo", "flow_cps", "dance_grpo", "mix_grpo", "ddpo", "grpo_guard"]


@pytest.mark.parametrize("kind", ["weighted_sum", "gdpo"])
@pytest.mark.parametrize("name", [*CUT, "diffusion_nft"])
def test_advantages_are_cut_whatever_mixes_the_rewards(
    name: str, kind: str, tmp_path: Path
) -> None:
    """Of 40 samples one stands out: by itself its advantage would be above 5."""
    rewards = torch.zeros(2, 20)
    rewards[1, 0] = 1.0
    advantage = advantage_of(name, tmp_path, f"mixing.kind={kind}", "max_advantage=2")
    found = advantage(rewards)
    assert found[1, 0] == 2.0
    assert found[1, 1:].max() < 0.0 and found.min() > -2.0


@pytest.mark.parametrize("value", ["-0.5", "0", "1", "1.5", ".nan"])
@pytest.mark.parametrize("name", CUT)
def test_a_band_without_a_ratio_in_it_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^clip: expected .*(greater|less) than|finite"):
        load_config(shrunk_config(name, tmp_path, f"clip={value}"))


@pytest.mark.parametrize("value", ["-5", "0", ".inf", ".nan"])
@pytest.mark.parametrize("name", [*CUT, "diffusion_nft", "awm"])
def test_a_cut_that_turns_or_frees_advantages_is_refused(
    name: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^max_advantage: expected .*(greater than 0|finite)"):
        load_config(shrunk_config(name, tmp_path, f"max_advantage={value}"))


ENDLESS = {
    "beta": ["prdp", "diffusion_nft", "diffusion_dpo"],
    "clip": ["prdp"],
    "power": ["awm"],
    "embedded_guidance": ["flow_grpo"],
    "sampling.guidance": ["draft_k"],
    "train.optimizer.lr": ["flow_grpo"],
    "train.optimizer.weight_decay": ["flow_grpo"],
}


@pytest.mark.parametrize(("key", "name"), [(k, n) for k, names in ENDLESS.items() for n in names])
def test_an_endless_number_is_refused(key: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: expected a finite number, got inf"):
        load_config(shrunk_config(name, tmp_path, f"{key}=.inf"))


QUIET = {
    "all": ["sampling.trained_steps=all", "sampling.trained_count=null"],
    "random": ["sampling.trained_steps=random"],
}


@pytest.mark.parametrize("strategy", QUIET)
def test_prdp_refuses_noise_that_no_log_ratio_can_be_read_from(
    strategy: str, tmp_path: Path
) -> None:
    changes = [*QUIET[strategy], "sampling.eta=0.0005"]
    message = r"^sampling\.eta: step \d has a std of .*, and below 0\.001 a log-ratio is mostly"
    with pytest.raises(ConfigError, match=message):
        load_config(shrunk_config("prdp", tmp_path, *changes))


def test_prdp_knows_the_noise_of_a_models_own_grid_when_the_model_is_there(tmp_path: Path) -> None:
    changes = ["sampling.shift=null", "sampling.eta=0.0005"]
    config = load_config(shrunk_config("prdp", tmp_path, *changes))
    with pytest.raises(ConfigError, match=r"^sampling\.eta: step \d has a std"):
        config.build()


def test_prdp_trains_the_steps_that_have_noise_and_no_other(tmp_path: Path) -> None:
    """Dance's std is eta sqrt(delta): at eta 0.002 only step 2 of 0 .. 2 has 1e-3."""
    changes = [*QUIET["all"], "sampling.transition=dance", "sampling.eta=0.002"]
    policy = load_config(shrunk_config("prdp", tmp_path, *changes)).build().policy
    lengths = -policy.schedule(4).levels.diff()
    expected = tuple(s for s in range(3) if 0.002 * lengths[s] ** 0.5 >= 1e-3)
    rollout = policy.rollout(PROMPTS, 2, [1, 2])
    assert rollout.replay.steps == expected == (2,)
    assert rollout.weights["denoise"].sum().item() == pytest.approx(1)


def test_gdpos_advantage_sees_the_batch_and_the_methods_own_a_group(tmp_path: Path) -> None:
    rewards = torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]])
    own = advantage_of("flow_grpo", tmp_path)(rewards)
    torch.testing.assert_close(own, group_normalized(rewards, std="population"))
    found = advantage_of("flow_grpo", tmp_path, "mixing.kind=gdpo")(rewards)
    torch.testing.assert_close(found, batch_normalized(rewards))


def test_prdp_leaves_a_reward_that_is_not_there_as_it_is(tmp_path: Path) -> None:
    rewards = torch.tensor([[0.5, torch.nan, 9.0]])
    found = advantage_of("prdp", tmp_path)(rewards)
    torch.testing.assert_close(found, rewards, rtol=0, atol=0, equal_nan=True)


def test_dpo_prefers_the_first_of_a_pair_whatever_was_scored() -> None:
    rewards = torch.tensor([[0.1, 0.9], [torch.nan, 0.2]])
    assert preferred_first(rewards).tolist() == [[1.0, -1.0], [1.0, -1.0]]


@pytest.mark.parametrize("levels", [[1.0, 0.5, 0.25, 0.0], [0.0, 0.5, 0.75, 1.0]])
def test_guards_scales_are_inverse_lengths_of_mean_one(levels: list[float]) -> None:
    """Lengths 1/2, 1/4, 1/4, whether noise levels fall or alpha-bars rise."""
    found = inverse_lengths(torch.tensor(levels, dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.6, 1.2, 1.2])
