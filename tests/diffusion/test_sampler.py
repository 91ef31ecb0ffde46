"""The loop over noise levels: known ends, recorded Gaussians, bits that replay."""

from __future__ import annotations

import pytest
import torch

from mmrl.diffusion.plan import StepPlan
from mmrl.diffusion.sampler import Schedule, sample_path, step_transition
from mmrl.diffusion.sigmas import shifted_sigmas
from mmrl.diffusion.transitions import TransitionKind
from mmrl.ops.gaussian import log_prob

SIGMAS = shifted_sigmas(8, 3.0)
STOCHASTIC: list[TransitionKind] = ["flow", "dance", "sage", "cps", "bridge"]


def curved(x: torch.Tensor, step: int) -> torch.Tensor:
    """A velocity that depends on state and step."""
    return torch.tanh(x) * (1 + 0.1 * step) - 0.3


def normal(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn((3, 2, 5), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def walk(kind: TransitionKind, x: torch.Tensor, velocity=curved, *, eta=0.5, plan=None):
    marks = (plan or StepPlan.all(8)).stochastic
    noise = lambda step: normal(100 + step, x.dtype)[: len(x)]  # noqa: E731
    return sample_path(velocity, x, SIGMAS, kind=kind, eta=eta, stochastic=marks, noise=noise)


def test_a_constant_velocity_is_walked_from_1_to_0() -> None:
    path = walk("sage", normal(0), lambda x, step: torch.full_like(x, 2.0), eta=0.0)
    torch.testing.assert_close(path.states[-1], normal(0) - 2.0)
    assert len(path.states) == 9


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_data_at_one_point_is_reached_whatever_the_noise(kind: TransitionKind) -> None:
    """v = (x - c) / sigma, and the last step is deterministic."""
    levels = SIGMAS.tolist()
    path = walk(kind, normal(0), lambda x, step: (x - 0.7) / levels[step])
    torch.testing.assert_close(path.states[-1], torch.full_like(normal(0), 0.7))


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_eta_0_is_the_path_of_the_deterministic_solver(kind: TransitionKind) -> None:
    still = walk(kind, normal(0), plan=StepPlan.deterministic(8))
    torch.testing.assert_close(
        walk(kind, normal(0), eta=0.0).states[-1], still.states[-1], rtol=0, atol=1e-12
    )


def test_states_are_mean_plus_std_noise_where_a_step_is_stochastic_and_only_there() -> None:
    drawn: list[int] = []

    def noise(step: int) -> torch.Tensor:
        drawn.append(step)
        return normal(step)

    marks = StepPlan.window(8, 2, 2).stochastic
    path = sample_path(
        curved, normal(9), SIGMAS, kind="flow", eta=0.5, stochastic=marks, noise=noise
    )
    assert drawn == [2, 3]
    for step, found in enumerate(path.transitions):
        before, after = path.states[step], path.states[step + 1]
        if step in (2, 3):
            assert found is not None
            assert after.equal(found.mean + found.std * normal(step))
        else:
            assert found is None
            ode = before - (SIGMAS[step] - SIGMAS[step + 1]) * curved(before, step)
            torch.testing.assert_close(after, ode)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_replayed_step_has_the_log_prob_of_the_rollout_bit_for_bit(kind: TransitionKind) -> None:
    path = walk(kind, normal(0, torch.float32))
    for step in StepPlan.all(8).trained_steps():
        before, after, sampled = path.states[step], path.states[step + 1], path.transitions[step]
        assert sampled is not None
        again = step_transition(
            kind, before, curved(before, step), SIGMAS, step, eta=0.5, variant="fixed"
        )
        rollout = log_prob(after, sampled.mean, sampled.std)
        assert (log_prob(after, again.mean, again.std) - rollout).exp().tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_row_does_not_know_its_neighbours(kind: TransitionKind) -> None:
    whole = walk(kind, normal(0))
    alone = walk(kind, normal(0)[:1])
    assert whole.states[-1][:1].equal(alone.states[-1])


def test_steps_are_taken_in_float32_though_the_network_speaks_bfloat16() -> None:
    """The velocity is rounded once; nothing after it is."""

    def half(x: torch.Tensor, step: int) -> torch.Tensor:
        return curved(x, step).bfloat16()

    found = walk("sage", normal(0, torch.float32), half)
    same = walk("sage", normal(0, torch.float32), lambda x, step: half(x, step).float())
    assert all(state.dtype == torch.float32 for state in found.states)
    assert found.states[-1].equal(same.states[-1])


def test_marks_for_another_number_of_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="3 marks for 8 steps"):
        sample_path(
            curved,
            normal(0),
            SIGMAS,
            kind="sage",
            eta=0.5,
            stochastic=[True] * 3,
            noise=normal,
        )


@pytest.mark.parametrize(
    ("first", "read"), [(0.999999, 1.0), (1.0000001, 1.0), (1.0, 1.0), (0.9998, 0.9998)]
)
def test_a_first_level_a_hair_from_pure_noise_is_pure_noise(first: float, read: float) -> None:
    sigmas = torch.tensor([first, 0.5, 0.0], dtype=torch.float64)
    schedule = Schedule.flow(sigmas)
    assert schedule.levels.tolist() == [read, 0.5, 0.0]
    assert schedule.timesteps.tolist() == [1000 * read, 500.0]
    assert sigmas[0] == first
