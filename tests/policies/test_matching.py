"""The forward process as a policy: exact noising, what it reports, and who samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mmrl.config import ConfigError, UserError
from mmrl.data.video import read_video
from mmrl.evaluate.runner import evaluate
from mmrl.objectives.nft import Nft
from mmrl.policies.matching import MatchingPolicy, generated
from mmrl.policies.noise import GroupNoise
from mmrl.policies.recorded import recorded_pairs
from mmrl.recipe import EvaluateConfig, OptimizerConfig, Recipe, TrainConfig
from mmrl.reward import RewardTable
from mmrl.train.accumulate import Replayed, accumulate
from mmrl.train.loop import initial_state, load_config
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.trust_region.schedule import EmaAnchor, FixedAnchor, TrustRegion
from mmrl.trust_region.weights import trainable, using
from mmrl.types import Prompt, Turn, VideoSample
from tests.tiny import shrunk_config, write_pairs
from tests.toy_video import PROMPTS, SHAPE, toy_policy

RANKS = Ranks(Accelerator(cpu=True))
SEEDS = [1, 2]
CONFIG = TrainConfig(steps=1, prompts_per_step=2, rows=4, optimizer=OptimizerConfig(lr=0.01))


def matching(seed: int = 0, *, shared_noise: bool = False, num_levels: int = 3) -> MatchingPolicy:
    return MatchingPolicy(toy_policy(seed=seed), generated, num_levels, shared_noise=shared_noise)


class Recorder:
    """A reward that keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, samples: list[VideoSample]) -> Tensor:
        self.seen = [sample.video for sample in samples]
        return torch.stack([video.mean() for video in self.seen])


def make(policy: MatchingPolicy, **anchors) -> tuple[Recipe, TrainState, Recorder]:
    recorder = Recorder()
    recipe = Recipe(
        policy=policy,
        prompts=PROMPTS,
        group_size=2,
        rewards=RewardTable({"recorder": recorder}, {"recorder": 1.0}),
        combine=lambda scores, step: scores["recorder"],
        advantage=lambda rewards: rewards,
        objective=Nft(beta=1.0, advantage_clip=1.0),
        trust_region=TrustRegion(**anchors),
        sample_from="ema" if "ema" in anchors else None,
    )
    return recipe, initial_state(recipe, CONFIG), recorder


def shake(recipe: Recipe) -> None:
    """Move the live weights away from every anchor."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in trainable(recipe.policy.module).values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def clean_latents(policy: MatchingPolicy) -> Tensor:
    return torch.cat([part[1] for part in generated(policy.video, PROMPTS, 2, SEEDS)])


def test_noised_and_target_give_back_the_sample_at_every_level() -> None:
    """noised = (1 - s) x0 + s eps and target = eps - x0, so x0 = noised - s target."""
    policy = matching()
    replay = policy.rollout(PROMPTS, 2, SEEDS).replay
    sigmas, noised = replay.sigmas[..., None], replay.noised.flatten(2)
    found = noised - sigmas * replay.target
    expected = clean_latents(policy).flatten(1)[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert replay.sigmas.unique().numel() == 3


def test_noised_and_target_give_back_the_noise_of_the_prompts_seed() -> None:
    """eps = noised + (1 - s) target, a draw of its own for every level."""
    policy = matching()
    replay = policy.rollout(PROMPTS, 2, SEEDS).replay
    sigmas, noised = replay.sigmas[..., None], replay.noised.flatten(2)
    found = noised + (1 - sigmas) * replay.target
    noise = GroupNoise([seed + 1 for seed in SEEDS], 2, SHAPE)
    for t in range(3):
        drawn = noise.draw().flatten(1).double()
        torch.testing.assert_close(found[:, t], drawn, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shared", [True, False])
def test_shared_noise_makes_the_noise_of_a_group_one(shared: bool) -> None:
    replay = matching(shared_noise=shared).rollout(PROMPTS, 2, SEEDS).replay
    noise = replay.noised.flatten(2) + (1 - replay.sigmas[..., None]) * replay.target
    gap = (noise[0::2] - noise[1::2]).abs().amax(-1)
    assert (gap < 1e-10).all() if shared else (gap > 0.1).all()
    assert (noise[0] - noise[2]).abs().max() > 0.1


def test_levels_are_of_the_grid_and_the_same_for_the_same_turn() -> None:
    policy = matching(num_levels=2)
    grid = policy.video.schedule(4).levels[:-1].float()
    drawn = set()
    for seed in range(8):
        found = policy.rollout(PROMPTS, 2, SEEDS, Turn(0, seed)).replay.sigmas
        again = policy.rollout(PROMPTS[:1], 2, [77], Turn(5, seed)).replay.sigmas
        assert torch.equal(found[0], again[0])
        assert torch.equal(found, found[:1].expand_as(found))
        assert torch.isin(found[0].float(), grid).all()
        drawn.add(tuple(found[0].tolist()))
    assert len(drawn) > 1


def test_log_probs_are_the_negative_mean_squared_error() -> None:
    policy = matching()
    rollout = policy.rollout(PROMPTS, 2, SEEDS)
    replay, found = rollout.replay, policy.evaluate(rollout)["denoise"]
    for t, sigma in enumerate(replay.sigmas[0].tolist()):
        model = policy.video.model
        v = model.predict(replay.noised[:, t], 1000 * sigma, replay.conditioning).flatten(1)
        torch.testing.assert_close(found.mean[:, t], v, rtol=1e-10, atol=0)
        error = (v - replay.target[:, t]).square().mean(1)
        torch.testing.assert_close(found.log_probs[:, t], -error, rtol=1e-10, atol=0)


def test_the_kl_to_an_anchor_is_the_mean_squared_gap_of_velocities() -> None:
    recipe, state, _ = make(matching(), fixed=FixedAnchor(coefficient=0.5))
    rollout = recipe.policy.rollout(PROMPTS, 2, SEEDS)
    shake(recipe)
    advantages = torch.zeros(4, dtype=torch.float64)
    found = accumulate(recipe, state, rollout, advantages, Replayed(), 0).metrics
    mine = recipe.policy.evaluate(rollout)["denoise"].mean
    with using(recipe.policy.module, state.anchors["fixed"].weights):
        theirs = recipe.policy.evaluate(rollout)["denoise"].mean
    expected = (mine - theirs).square().mean().item()
    assert expected > 1e-3
    assert found["kl/fixed/denoise"] == pytest.approx(expected, rel=1e-6)


def test_a_rollouts_videos_are_those_of_sample_for_the_same_seeds() -> None:
    policy = matching()
    drawn = policy.rollout(PROMPTS, 1, SEEDS).samples
    for one, other in zip(drawn, policy.sample(PROMPTS, SEEDS), strict=True):
        torch.testing.assert_close(one.video, other.video, rtol=0, atol=1e-12)


@pytest.mark.parametrize("source", ["ema", None])
def test_the_anchor_samples_where_the_recipe_says_so(source: str | None) -> None:
    """A step of a shaken policy is scored on the videos of the anchor's weights."""
    recipe, state, recorder = make(matching(), ema=EmaAnchor(coefficient=0.0, decay=0.5))
    shake(recipe)
    train_step(replace(recipe, sample_from=source), state, CONFIG, RANKS)
    other, fresh, expected = make(matching(), ema=EmaAnchor(coefficient=0.0, decay=0.5))
    train_step(other, fresh, CONFIG, RANKS)
    gap = max((a - b).abs().max() for a, b in zip(recorder.seen, expected.seen, strict=True))
    assert gap == 0 if source == "ema" else gap > 1e-3


def test_the_anchor_that_samples_leaves_the_live_weights_alone() -> None:
    """With a rate of next to nothing the shaken weights are there after the step."""
    recipe, state, _ = make(matching(), ema=EmaAnchor(coefficient=0.0, decay=0.5))
    shake(recipe)
    live = {name: p.detach().clone() for name, p in trainable(recipe.policy.module).items()}
    still = CONFIG.model_copy(update={"optimizer": OptimizerConfig(lr=1e-300)})
    train_step(recipe, state, still, RANKS)
    for name, p in trainable(recipe.policy.module).items():
        assert torch.equal(p, live[name]), name


@pytest.mark.parametrize("name", ["diffusion_nft", "awm", "diffusion_dpo"])
def test_one_step_on_a_real_model_changes_the_weights(name: str, tmp_path: Path) -> None:
    rewards = "rewards={motion_direction: {weight: 1.0}, smoothness: {weight: 1.0}}"
    config = load_config(shrunk_config(name, tmp_path, rewards))
    recipe = config.build()
    state = initial_state(recipe, config.train)
    before = {n: p.detach().clone() for n, p in trainable(recipe.policy.module).items()}
    metrics = train_step(recipe, state, config.train, RANKS)
    assert metrics["skipped_update"] == 0.0
    assert metrics["grad_norm"] > 0
    after = trainable(recipe.policy.module)
    assert any(not torch.equal(before[n], p) for n, p in after.items())


def pair_policy(tmp_path: Path) -> tuple[MatchingPolicy, list[Prompt]]:
    """Diffusion-DPO's policy on tiny-wan at the size of the recorded pairs."""
    size = ["video.num_frames=9", "video.height=32", "video.width=32"]
    tree = shrunk_config("diffusion_dpo", tmp_path, *size, "prompts=assets/pairs/pairs.jsonl")
    recipe = load_config(tree).build()
    return recipe.policy, list(recipe.prompts[:4])


def test_recorded_pairs_come_back_through_the_vae(tmp_path: Path) -> None:
    policy, prompts = pair_policy(tmp_path)
    parts = list(recorded_pairs(policy.video, prompts, 2, [0] * 4))
    decoded = [video for part in parts for video in policy.video.decode(part[1])]
    paths = [path for prompt in prompts for path in prompt.videos]
    assert len(decoded) == len(paths) == 8
    for video, path in zip(decoded, paths, strict=True):
        recorded = read_video(path)
        error = (video - recorded).square().mean()
        assert error < 0.15 * recorded.var(), path


def test_pairs_stand_preferred_first_with_their_own_prompt(tmp_path: Path) -> None:
    policy, prompts = pair_policy(tmp_path)
    samples = policy.rollout(prompts, 2, [0] * 4).samples
    for row, sample in enumerate(samples):
        prompt = prompts[row // 2]
        assert sample.prompt == prompt
        assert torch.equal(sample.video, read_video(prompt.videos[row % 2]))


def test_a_prompt_without_two_videos_is_named(tmp_path: Path) -> None:
    policy, prompts = pair_policy(tmp_path)
    lone = Prompt("a lone prompt", videos=prompts[0].videos[:1])
    with pytest.raises(UserError, match=r"'a lone prompt' has 1 videos.*\[preferred, rejected\]"):
        policy.rollout([lone], 2, [0])


def test_a_group_of_three_is_no_pair(tmp_path: Path) -> None:
    policy, prompts = pair_policy(tmp_path)
    with pytest.raises(ConfigError, match="group_size: a pair is a group of 2, got 3"):
        policy.rollout(prompts, 3, [0] * 4)


def test_recorded_videos_of_another_size_than_the_models_are_refused(tmp_path: Path) -> None:
    tree = shrunk_config("diffusion_dpo", tmp_path)
    recipe = load_config({**tree, "prompts": str(write_pairs(tmp_path / "big", side=32))}).build()
    with pytest.raises(UserError, match="size of the config's video, got 5 frames of 32x32"):
        recipe.policy.rollout(recipe.prompts, 2, SEEDS)


def test_a_model_without_an_encoder_cannot_learn_from_recorded_pairs() -> None:
    policy = MatchingPolicy(toy_policy(), recorded_pairs, 1)
    with pytest.raises(ConfigError, match="model: ToyVideo cannot encode recorded videos"):
        policy.rollout(PROMPTS, 2, SEEDS)


def test_a_model_that_predicts_v_cannot_match_velocities() -> None:
    with pytest.raises(ConfigError, match=r"model: predicts v_prediction.*choose a flow model"):
        MatchingPolicy(toy_policy(output="v_prediction"), generated, 1)


@pytest.mark.parametrize("count", [0, 5])
def test_levels_that_the_grid_does_not_have_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=r"num_levels: need 1 \.\. 4 of the grid"):
        matching(num_levels=count)


def test_evaluation_takes_the_live_weights_and_no_average_of_them(tmp_path: Path) -> None:
    recipe, _, recorder = make(matching(), ema=EmaAnchor(coefficient=0.0, decay=0.5))
    shake(recipe)
    held_out = tmp_path / "prompts.jsonl"
    held_out.write_text("".join(json.dumps({"text": p.text}) + "\n" for p in PROMPTS), "utf-8")
    found = evaluate(recipe, EvaluateConfig(prompts=str(held_out), count=2))
    mine = recipe.policy.sample(PROMPTS, found.seeds)
    assert all(torch.equal(a, b.video) for a, b in zip(recorder.seen, mine, strict=True))
    before = matching().sample(PROMPTS, found.seeds)
    assert all((a - b.video).abs().max() > 1e-3 for a, b in zip(recorder.seen, before, strict=True))
