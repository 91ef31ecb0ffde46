"""Von Mises-Fisher: 80-digit references, limits, and a sampler that obeys them. float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmrl.ops import vmf

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/vmf.json").read_text())


def tensor(value: float | list) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("row", GOLDEN["normalizers"], ids=lambda r: f"{r['d']}-{r['kappa']}")
def test_normalizer_and_mean_resultant_equal_the_reference(row: dict) -> None:
    kappa = tensor(row["kappa"])
    assert vmf.log_normalizer(kappa, row["d"]).item() == pytest.approx(
        row["log_C"], rel=1e-12, abs=0
    )
    assert vmf.mean_resultant(kappa, row["d"]).item() == pytest.approx(row["A"], rel=1e-12, abs=0)


@pytest.mark.parametrize("row", GOLDEN["normalizers"], ids=lambda r: f"{r['d']}-{r['kappa']}")
def test_derivatives_in_kappa_equal_the_reference(row: dict) -> None:
    """d log C = -A and dA = A', also where kappa is far below the dimension."""
    kappa = tensor(row["kappa"]).requires_grad_(True)
    (slope,) = torch.autograd.grad(vmf.log_normalizer(kappa, row["d"]), kappa)
    assert slope.item() == pytest.approx(-row["A"], rel=1e-12, abs=0)
    (slope,) = torch.autograd.grad(vmf.mean_resultant(kappa, row["d"]), kappa)
    assert slope.item() == pytest.approx(row["A_prime"], rel=1e-8, abs=0)


def test_the_sphere_in_three_dimensions_by_hand() -> None:
    """C = kappa / (4 pi sinh kappa), A = coth kappa - 1 / kappa."""
    for kappa in (0.5, 3.0, 20.0):
        expected = math.log(kappa / (4 * math.pi * math.sinh(kappa)))
        assert vmf.log_normalizer(tensor(kappa), 3).item() == pytest.approx(expected, rel=1e-12)
        expected = 1 / math.tanh(kappa) - 1 / kappa
        assert vmf.mean_resultant(tensor(kappa), 3).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 64, 2048])
def test_a_kappa_near_0_is_the_uniform_law(dim: int) -> None:
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    assert vmf.log_normalizer(tensor(1e-3), dim).item() == pytest.approx(-area, abs=1e-6)


@pytest.mark.parametrize(
    "row", GOLDEN["kl_large"], ids=lambda r: f"{r['d']}-{r['cos']}-{r['kappa1']}-{r['kappa2']}"
)
def test_kl_in_many_dimensions_equals_the_reference(row: dict) -> None:
    first, second = torch.zeros((2, row["d"]), dtype=torch.float64)
    first[0], second[0] = 1.0, row["cos"]
    second[1] = (1 - row["cos"] ** 2) ** 0.5
    kappas = tensor(row["kappa1"]), tensor(row["kappa2"])
    found = vmf.kl(first, kappas[0], second, kappas[1]).item()
    assert found == pytest.approx(row["kl_12"], rel=1e-9, abs=1e-16)
    found = vmf.kl(second, kappas[1], first, kappas[0]).item()
    assert found == pytest.approx(row["kl_21"], rel=1e-9, abs=1e-16)


def test_kl_of_a_tiny_angle_keeps_its_digits() -> None:
    """kappa A angle^2 / 2, though cos(1e-6) is 1 - 5e-13 and 16 digits hold little of that."""
    first, second = tensor([1.0, 0.0, 0.0]), tensor([1.0, 1e-6, 0.0])
    kappa = tensor(1e5)
    expected = 1e5 * (1 - 1e-5) * 0.5e-12
    assert vmf.kl(first, kappa, second, kappa).item() == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize("row", GOLDEN["kl_small"], ids=lambda r: f"{r['d']}-{r['kappa1']}")
def test_kl_equals_the_reference_in_both_directions(row: dict) -> None:
    first = tensor(row["mu1"]), tensor(row["kappa1"])
    second = tensor(row["mu2"]), tensor(row["kappa2"])
    assert vmf.kl(*first, *second).item() == pytest.approx(row["kl_12"], rel=1e-9, abs=1e-12)
    assert vmf.kl(*second, *first).item() == pytest.approx(row["kl_21"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("row", GOLDEN["log_prob"], ids=lambda r: f"{r['d']}-{r['kappa']}")
def test_log_prob_equals_the_reference(row: dict) -> None:
    found = vmf.log_prob(tensor(row["z"]), tensor(row["mu"]), tensor(row["kappa"]))
    assert found.item() == pytest.approx(row["log_prob"], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 3.0), (8, 40.0), (256, 100.0), (1024, 5e3)])
def test_samples_have_the_mean_and_spread_of_the_law(dim: int, kappa: float) -> None:
    generator = torch.Generator().manual_seed(0)
    count = 4000
    mean = torch.nn.functional.normalize(torch.ones(dim, dtype=torch.float64), dim=0)
    z = vmf.sample(mean.expand(count, -1), torch.full((count,), kappa), generator)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(count, dtype=torch.float64))
    cosine = z @ mean
    resultant = vmf.mean_resultant(tensor(kappa), dim).item()
    variance = 1 - resultant**2 - (dim - 1) / kappa * resultant
    error = (variance / count) ** 0.5
    assert cosine.mean().item() == pytest.approx(resultant, abs=4 * error)
    assert cosine.var().item() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5 * 1.5)


def test_kl_of_equal_laws_is_zero_with_zero_gradient() -> None:
    anchor = torch.nn.functional.normalize(tensor([1.0, 2.0, -1.0]), dim=0)
    mean, kappa = anchor.clone().requires_grad_(True), tensor(7.0).requires_grad_(True)
    found = vmf.kl(mean, kappa, anchor, tensor(7.0))
    slopes = torch.autograd.grad(found, (mean, kappa))
    assert found.item() == 0
    assert slopes[0].tolist() == [0, 0, 0]
    assert slopes[1].item() == pytest.approx(0, abs=1e-15)


def test_a_direction_that_is_no_unit_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="mean must be a unit vector"):
        vmf.log_prob(tensor([1.0, 0.0]), tensor([2.0, 0.0]), tensor(1.0))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be >= 2"):
        vmf.log_normalizer(tensor(1.0), 1)
    with pytest.raises(ValueError, match="kappa must be > 0"):
        vmf.log_normalizer(tensor(0.0), 3)


@pytest.mark.parametrize("kappa", [0.0, -1.0, float("nan")])
def test_sampling_refuses_a_concentration_it_could_never_accept(kappa: float) -> None:
    with pytest.raises(ValueError, match="kappa must be > 0"):
        vmf.sample(tensor([[1.0, 0.0]]), tensor([kappa]), torch.Generator())


def test_the_same_generator_draws_the_same_directions() -> None:
    mean = tensor([[0.6, 0.8], [1.0, 0.0]])
    draws = [vmf.sample(mean, tensor([2.0, 5.0]), torch.Generator().manual_seed(3)) for _ in "ab"]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(vmf.sample(mean, tensor([2.0, 5.0]), torch.Generator()))


@pytest.mark.parametrize(
    "row", GOLDEN["kappa_for_target"], ids=lambda r: f"{r['d']}-{r['target_A']}"
)
def test_the_concentration_of_a_mean_cosine_equals_the_reference(row: dict) -> None:
    found = vmf.concentration(row["target_A"], row["d"])
    assert found == pytest.approx(row["kappa"], rel=1e-12)


def test_a_mean_cosine_outside_0_and_1_is_named() -> None:
    with pytest.raises(ValueError, match="a mean cosine lies between 0 and 1, got 1"):
        vmf.concentration(1.0, 8)


@pytest.mark.parametrize(("dim", "kappa", "other"), [(8, 40.0, 10.0), (3584, 1e4, 1e3)])
def test_kl_is_the_mean_log_ratio_of_samples(dim: int, kappa: float, other: float) -> None:
    """Within 4 standard errors, at a cosine of 0.99 between the means."""
    count, generator = 300, torch.Generator().manual_seed(0)
    first, second = torch.zeros((2, dim), dtype=torch.float64)
    first[0], second[0], second[1] = 1.0, 0.99, (1 - 0.99**2) ** 0.5
    kappas = tensor([kappa, other])
    z = vmf.sample(first.expand(count, -1), kappas[0].expand(count), generator)
    ratios = vmf.log_prob(z, first.expand(count, -1), kappas[0].expand(count)) - vmf.log_prob(
        z, second.expand(count, -1), kappas[1].expand(count)
    )
    error = ratios.std() / count**0.5
    assert ratios.mean().item() == pytest.approx(
        vmf.kl(first, kappas[0], second, kappas[1]).item(), abs=4 * error.item()
    )
