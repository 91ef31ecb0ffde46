"""A streamed gradient is the gradient: against the whole loss in one graph, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mmrl.diffusion.equalizer import equalizer_scales
from mmrl.objectives.clipped import Clip
from mmrl.objectives.grpo import Grpo
from mmrl.objectives.prdp import Prdp
from mmrl.objectives.surrogate import Surrogate
from mmrl.objectives.surrogate_kinds import Gmpo, Gspo, Vespo
from mmrl.policies.video import VideoPolicy
from mmrl.recipe import Objective, OptimizerConfig, Recipe, TrainConfig
from mmrl.reward import RewardTable
from mmrl.train.accumulate import Accumulated, Replayed, accumulate
from mmrl.train.loop import initial_state
from mmrl.train.ranks import Ranks
from mmrl.train.state import TrainState
from mmrl.train.step import train_step, update
from mmrl.trust_region.schedule import FixedAnchor, PeriodicAnchor, StepwiseAnchor, TrustRegion
from mmrl.trust_region.weights import using
from mmrl.types import Actions, Rollout, VideoSample
from tests.toy_video import PROMPTS, toy_policy

RANKS = Ranks(Accelerator(cpu=True))
CONFIG = TrainConfig(
    steps=1,
    prompts_per_step=2,
    rows=4,
    updates_per_rollout=3,
    optimizer=OptimizerConfig(lr=0.02, max_grad_norm=100.0),
)
SCORES = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64)
FIXED = TrustRegion(fixed=FixedAnchor(coefficient=0.7))
MOVING = TrustRegion(
    periodic=PeriodicAnchor(coefficient=0.5, refresh_every=2),
    stepwise=StepwiseAnchor(coefficient=0.3),
)
PRDP = Prdp(beta=0.5, clip=0.05)
GRPO = Grpo({"denoise": Clip(0.02, 0.02)})
SCALES = partial(equalizer_scales, "flow", eta=0.7)


def brightness(samples: list[VideoSample]) -> Tensor:
    return torch.stack([sample.video.mean() for sample in samples])


def make(
    policy: VideoPolicy, objective: Objective, region: TrustRegion
) -> tuple[Recipe, TrainState]:
    recipe = Recipe(
        policy=policy,
        prompts=PROMPTS,
        group_size=2,
        rewards=RewardTable({"brightness": brightness}, {"brightness": 1.0}),
        combine=lambda scores, step: scores["brightness"],
        advantage=lambda rewards: rewards,
        objective=objective,
        trust_region=region,
    )
    return recipe, initial_state(recipe, CONFIG)


def roll(recipe: Recipe) -> Rollout:
    return recipe.policy.rollout(PROMPTS, recipe.group_size, [1, 2])


def taken_gradient(recipe: Recipe) -> Tensor:
    learning = list(recipe.policy.module.parameters())
    found = torch.cat([p.grad.flatten().clone() for p in learning])
    recipe.policy.module.zero_grad()
    return found


def whole_loss(
    recipe: Recipe, state: TrainState, rollout: Rollout, behavior: Actions
) -> tuple[Tensor, dict[str, float]]:
    """All decisions in one graph, every anchor by a forward of its own, the KL by its formula."""
    anchors = {}
    for name, anchor in state.anchors.items():
        with torch.no_grad(), using(recipe.policy.module, anchor.weights):
            anchors[name] = recipe.policy.evaluate(rollout)
    current = recipe.policy.evaluate(rollout)
    batch = replace(rollout, behavior=behavior)
    total, metrics = recipe.objective(current, anchors, batch, SCORES)
    mine = current["denoise"]
    for name, config in recipe.trust_region.anchors().items():
        gap = (mine.mean - anchors[name]["denoise"].mean).square().mean(-1)
        kl = (rollout.weights["denoise"] * gap / (2 * mine.scale.square())).sum()
        total = total + config.coefficient * kl
        metrics[f"kl/{name}/denoise"] = kl.item()
    return total, metrics | {"loss": total.item()}


def passes(
    policy: VideoPolicy, objective: Objective, region: TrustRegion, check: Callable[..., None]
) -> list[Accumulated]:
    """Three updates on one rollout, `check` before each with what was streamed and what is true."""
    recipe, state = make(policy, objective, region)
    rollout, replayed, found = roll(recipe), Replayed(), []
    for number in range(3):
        behavior = replayed.behavior.get(0, rollout.behavior)
        total, expected = whole_loss(recipe, state, rollout, behavior)
        total.backward()
        whole = taken_gradient(recipe)
        one = accumulate(recipe, state, rollout, SCORES, replayed, 0)
        streamed = taken_gradient(recipe)
        check(number, streamed, whole, one.metrics, expected)
        for p, part in zip(
            recipe.policy.module.parameters(),
            streamed.split([p.numel() for p in recipe.policy.module.parameters()]),
            strict=True,
        ):
            p.grad = part.view_as(p).clone()
        replayed.latest, replayed.latest_at = {0: one.current}, state.updates
        update(recipe, state, CONFIG, RANKS, one.metrics, 4)
        found.append(one)
    return found


def equal_gradients(number: int, streamed: Tensor, whole: Tensor, *_: object) -> None:
    assert whole.abs().max() > 1e-4, number
    assert (streamed - whole).abs().max() < 1e-10 * whole.abs().max(), number


def equal_metrics(number: int, _: Tensor, __: Tensor, metrics: dict, expected: dict) -> None:
    assert expected.keys() <= metrics.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (number, name)


@pytest.mark.parametrize("chunk", [1, 2, None])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_prdp_streams_the_gradient_of_the_whole_loss(chunk: int | None, reduction: str) -> None:
    objective = Prdp(beta=0.5, clip=0.05, step_reduction=reduction)
    passes(toy_policy(decision_chunk=chunk), objective, FIXED, equal_gradients)


def test_prdp_streams_the_metrics_of_the_whole_loss() -> None:
    passes(toy_policy(), PRDP, FIXED, equal_metrics)


def test_the_clip_and_the_kl_are_active_where_prdp_is_compared() -> None:
    """Else the two tests above would say little."""
    found = passes(toy_policy(), PRDP, FIXED, lambda *_: None)
    assert found[1].metrics["kl/fixed/denoise"] > 1e-4
    assert any(0 < one.metrics["clipped_pairs"] < 1 for one in found)
    assert any(0 < one.metrics["clip_fraction"] < 1 for one in found)


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_grpo_streams_the_gradient_of_the_whole_loss(chunk: int | None) -> None:
    """Scaled steps, and two anchors that move between the passes."""
    policy = toy_policy(scales=SCALES, decision_chunk=chunk)
    found = passes(policy, GRPO, MOVING, equal_gradients)
    assert 0 < found[1].metrics["clip_fraction"] < 1
    assert found[1].metrics["kl/periodic/denoise"] > 1e-4
    assert found[2].metrics["kl/periodic/denoise"] == 0.0
    assert found[2].metrics["kl/stepwise/denoise"] > 1e-4


@pytest.mark.parametrize("chunk", [1, 2, None])
@pytest.mark.parametrize(
    "surrogate", [Gspo(kind="gspo", low=0.02, high=0.02), Gmpo(kind="gmpo"), Vespo(kind="vespo")]
)
def test_a_ratio_of_the_whole_path_streams_the_gradient_of_the_whole_loss(
    chunk: int | None, surrogate: Surrogate
) -> None:
    policy = toy_policy(scales=SCALES, decision_chunk=chunk)
    found = passes(policy, Grpo({"denoise": surrogate}), MOVING, equal_gradients)
    assert found[0].metrics["ratio/deviation"] == 0 < found[1].metrics["ratio/deviation"]


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_grpo_streams_the_metrics_of_the_whole_loss(chunk: int | None) -> None:
    passes(toy_policy(scales=SCALES, decision_chunk=chunk), GRPO, MOVING, equal_metrics)


def test_the_steps_of_the_equalized_toy_have_different_scales() -> None:
    scales = roll(make(toy_policy(scales=SCALES), GRPO, MOVING)[0]).scales["denoise"]
    assert scales.unique().numel() == len(scales) == 3


@pytest.mark.parametrize(("objective", "region"), [(PRDP, FIXED), (GRPO, MOVING)])
def test_the_first_pass_has_ratio_exactly_1_and_the_next_do_not(
    objective: Objective, region: TrustRegion
) -> None:
    first, second, _ = passes(toy_policy(), objective, region, lambda *_: None)
    assert first.metrics["ratio/deviation"] == 0.0
    assert second.metrics["ratio/deviation"] > 1e-3


@pytest.mark.parametrize(("objective", "region"), [(PRDP, FIXED), (GRPO, MOVING)])
def test_the_first_pass_stays_the_behavior_of_every_later_one(
    objective: Objective, region: TrustRegion
) -> None:
    recipe, state = make(toy_policy(), objective, region)
    rollout, replayed = roll(recipe), Replayed()
    first = accumulate(recipe, state, rollout, SCORES, replayed, 0)
    update(recipe, state, CONFIG, RANKS, first.metrics, 4)
    second = accumulate(recipe, state, rollout, SCORES, replayed, 0)
    kept = replayed.behavior[0]["denoise"].log_probs
    assert torch.equal(kept, first.current["denoise"].log_probs)
    drift = (second.current["denoise"].log_probs - kept).exp() - 1
    expected = (rollout.weights["denoise"] * drift.abs()).sum().item()
    assert second.metrics["ratio/deviation"] == pytest.approx(expected, rel=1e-12)


def test_prdps_first_pass_takes_the_samplers_own_likelihoods() -> None:
    """Shifted by hand, they show up as the behavior and as the gap to the replay."""
    recipe, state = make(toy_policy(), PRDP, FIXED)
    rollout, replayed = roll(recipe), Replayed()
    rollout.behavior["denoise"].log_probs.add_(0.03)
    found = accumulate(recipe, state, rollout, SCORES, replayed, 0)
    sampled = rollout.behavior["denoise"].log_probs
    assert torch.equal(replayed.behavior[0]["denoise"].log_probs, sampled)
    assert found.metrics["rollout/log_prob_gap"] == pytest.approx(0.03, rel=1e-10)


@pytest.mark.parametrize(("objective", "region"), [(PRDP, FIXED), (GRPO, MOVING)])
def test_replay_on_a_cpu_repeats_the_sampler_exactly(
    objective: Objective, region: TrustRegion
) -> None:
    recipe, state = make(toy_policy(), objective, region)
    found = accumulate(recipe, state, roll(recipe), SCORES, Replayed(), 0)
    assert found.metrics["rollout/log_prob_gap"] == 0.0


@pytest.mark.parametrize(("objective", "region"), [(PRDP, FIXED), (GRPO, MOVING)])
def test_a_steps_gap_is_that_of_its_first_pass_however_many_follow(
    objective: Objective, region: TrustRegion
) -> None:
    recipe, state = make(toy_policy(), objective, region)
    sample = recipe.policy.rollout

    def shifted(*given) -> Rollout:
        rollout = sample(*given)
        rollout.behavior["denoise"].log_probs.add_(0.03)
        return rollout

    recipe.policy.rollout = shifted
    metrics = train_step(recipe, state, CONFIG, RANKS)
    assert metrics["rollout/log_prob_gap"] == pytest.approx(0.03, rel=1e-9)


class Saved:
    """A tensor that autograd keeps, and the bytes it adds while it does."""

    def __init__(self, tensor: Tensor, tally: dict[str, int]) -> None:
        self.tensor, self.tally = tensor.detach(), tally
        tally["live"] += tensor.nbytes
        tally["peak"] = max(tally["peak"], tally["live"])

    def __del__(self) -> None:
        self.tally["live"] -= self.tensor.nbytes


def peak_bytes(recipe: Recipe, run: Callable[[], object]) -> int:
    """Most bytes that autograd kept at one time, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in recipe.policy.module.parameters()}
    tally = {"live": 0, "peak": 0}

    def pack(tensor: Tensor) -> Tensor | Saved:
        mine = tensor.untyped_storage().data_ptr() in weights
        return tensor if mine else Saved(tensor, tally)

    with saved_tensors_hooks(pack, lambda kept: kept.tensor if isinstance(kept, Saved) else kept):
        run()
    assert tally["live"] == 0
    return tally["peak"]


def prdp_bytes(num_steps: int, chunk: int | None) -> int:
    recipe, state = make(
        toy_policy(num_steps=num_steps + 1, hidden=2048, decision_chunk=chunk), PRDP, FIXED
    )
    rollout = roll(recipe)
    step = partial(accumulate, recipe, state, rollout, SCORES, Replayed(), 0)
    return peak_bytes(recipe, step)


def test_streamed_prdp_keeps_the_activations_of_one_step_however_many_are_trained() -> None:
    assert prdp_bytes(8, chunk=1) <= 1.3 * prdp_bytes(2, chunk=1)
    assert prdp_bytes(8, chunk=None) >= 3 * prdp_bytes(2, chunk=None)
