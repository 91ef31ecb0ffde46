"""Von Mises-Fisher: 80-digit references, limits, and a sampler that obeys them. float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmrl.ops import vmf

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/vmf.json").read_text())


def tensor(value: float | list[float]) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("row", GOLDEN["normalizers"], ids=lambda r: f"{r['d']}-{r['kappa']}")
def test_normalizer_and_mean_resultant_equal_the_reference(row: dict) -> None:
    kappa = tensor(row["kappa"])
    assert vmf.log_normalizer(kappa, row["d"]).item() == pytest.approx(row["log_C"], rel=1e-12)
    assert vmf.mean_resultant(kappa, row["d"]).item() == pytest.approx(row["A"], rel=1e-12)


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
    mean = torch.nn.functional.normalize(tensor([1.0, 2.0, -1.0]), dim=0)
    kappa = tensor(7.0).requires_grad_(True)
    found = vmf.kl(mean, kappa, mean, tensor(7.0))
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert kappa.grad is not None
    assert kappa.grad.item() == pytest.approx(0, abs=1e-9)


def test_a_direction_that_is_no_unit_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="mean must be a unit vector"):
        vmf.log_prob(tensor([1.0, 0.0]), tensor([2.0, 0.0]), tensor(1.0))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be >= 2"):
        vmf.log_normalizer(tensor(1.0), 1)
    with pytest.raises(ValueError, match="kappa must be > 0"):
        vmf.log_normalizer(tensor(0.0), 3)
