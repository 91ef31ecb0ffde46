"""Von Mises-Fisher distribution on the unit sphere of R^d, exact from d = 2 to thousands.

log I_v is taken from the uniform asymptotic expansion at an order of at least 64, where ten terms
reach the last bits of float64, and carried down to v by the ratios I_{k+1} / I_k of a backward
recurrence (DLMF 10.41.3, 10.29.1).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MIN_ORDER = 64
TERMS = 10
START_ABOVE = 64
"""Orders above the highest asked one where the backward recurrence begins."""
NEWTON_STEPS = 8


def log_normalizer(kappa: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """log C_d(kappa) = (d/2 - 1) log kappa - (d/2) log 2 pi - log I_{d/2 - 1}(kappa).

    Its derivative is -A_d(kappa).
    """
    kappa, _ = _checked(kappa, dim)
    found = _LogNormalizer.apply(kappa, dim)
    assert isinstance(found, Tensor)
    return found


def mean_resultant(kappa: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """A_d(kappa) = I_{d/2}(kappa) / I_{d/2 - 1}(kappa): length of the mean, in (0, 1)."""
    kappa, order = _checked(kappa, dim)
    return _ratios(order, kappa, 1)[0]


def concentration(cosine: float, dim: int) -> float:
    """The kappa whose draws have this mean cosine to their direction: A_d(kappa) = cosine.

    Newton's method from cosine (d - cosine^2) / (1 - cosine^2) (Banerjee et al., 2005).
    """
    if not 0 < cosine < 1:
        raise ValueError(f"a mean cosine lies between 0 and 1, got {cosine}")
    kappa = torch.tensor(cosine * (dim - cosine**2) / (1 - cosine**2), dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        point = kappa.requires_grad_(True)
        found = mean_resultant(point, dim)
        (slope,) = torch.autograd.grad(found, point)
        kappa = (point - (found - cosine) / slope).detach()
    return kappa.item()


def log_prob(
    z: Float[Tensor, "*N D"], mean: Float[Tensor, "*N D"], kappa: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """log C_d(kappa) + kappa <mean, z> of unit vectors, in float64."""
    cosine = (z.double() * _unit(mean, "mean")).sum(-1)
    return log_normalizer(kappa, z.shape[-1]) + kappa.double() * cosine


def kl(
    mean: Float[Tensor, "*N D"],
    kappa: Float[Tensor, "*N"],
    anchor_mean: Float[Tensor, "*N D"],
    anchor_kappa: Float[Tensor, "*N"],
) -> Float[Tensor, "*N"]:
    """log C(kappa) - log C(kappa_a) + A_d(kappa) (kappa - kappa_a <mean, mean_a>), in float64.

    1 - <mean, mean_a> is taken as |mean - mean_a|^2 / 2, which keeps small angles. ValueError
    where a mean is not a unit vector: the formula could then be negative.
    """
    dim = mean.shape[-1]
    apart = (_unit(mean, "mean") - _unit(anchor_mean, "anchor_mean")).square().sum(-1) / 2
    shift = log_normalizer(kappa, dim) - log_normalizer(anchor_kappa, dim)
    pull = kappa.double() - anchor_kappa.double() + anchor_kappa.double() * apart
    return shift + mean_resultant(kappa, dim) * pull


@torch.no_grad()
def sample(
    mean: Float[Tensor, "N D"], kappa: Float[Tensor, " N"], generator: torch.Generator
) -> Float[Tensor, "N D"]:
    """One draw a row by rejection on the cosine (Wood, 1994, doi:10.1080/03610919408813161)."""
    rows, dim = mean.shape
    center, size = _unit(mean, "mean"), dim - 1
    k, _ = _checked(kappa, dim)
    b = size / (2 * k + torch.sqrt(4 * k**2 + size**2))
    x0 = (1 - b) / (1 + b)
    c = k * x0 + size * torch.log1p(-(x0**2))
    cosine = torch.full_like(k, torch.nan)
    while len(rest := cosine.isnan().nonzero()[:, 0]):
        chi = _normal((len(rest), 2, size), generator).to(k.device).square().sum(-1)
        beta = chi[:, 0] / chi.sum(-1)
        w = (1 - (1 + b[rest]) * beta) / (1 - (1 - b[rest]) * beta)
        log_odds = k[rest] * w + size * torch.log1p(-x0[rest] * w) - c[rest]
        accepted = log_odds >= _log_uniform(len(rest), generator).to(k.device)
        cosine[rest[accepted]] = w[accepted]
    normal = _normal((rows, dim), generator).to(center.device)
    tangent = normal - (normal * center).sum(-1, keepdim=True) * center
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    sine = (1 - cosine**2).clamp(min=0).sqrt()
    return (cosine[:, None] * center + sine[:, None] * tangent).to(mean.dtype)


class _LogNormalizer(torch.autograd.Function):
    """Its backward is -A_d itself: the slopes of log kappa and log I cancel where kappa << d."""

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, dim: int) -> Tensor:
        """log C_d(kappa)."""
        ctx.save_for_backward(kappa)
        ctx.dim = dim
        order = dim / 2 - 1
        return order * kappa.log() - dim / 2 * math.log(2 * math.pi) - log_bessel(order, kappa)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """-A_d(kappa)."""
        (kappa,) = ctx.saved_tensors
        return -grads[0] * mean_resultant(kappa, ctx.dim), None


def log_bessel(order: float, x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """log I_order(x) for order >= 0 and x > 0."""
    steps = max(0, math.ceil(MIN_ORDER - order))
    value = _log_bessel_uniform(order + steps, x)
    if steps:
        value = value - torch.stack(_ratios(order, x, steps)).log().sum(0)
    return value


def _ratios(order: float, x: Tensor, count: int) -> list[Tensor]:
    """I_{v+1} / I_v for v = order .. order + count - 1, by 1 / r_{v-1} = r_v + 2 v / x.

    The recurrence starts at an order where I' / I = r + v / x is known from the expansion.
    """
    top = order + count + START_ABOVE
    powers, slopes = _debye_sums(top, x)
    root = torch.sqrt(top**2 + x**2)
    ratio = (root * slopes / powers - top) / x
    found = []
    for below in range(count + START_ABOVE):
        order_above = top - below
        ratio = 1 / (ratio + 2 * order_above / x)
        if order_above - 1 < order + count:
            found.append(ratio)
    return found[::-1]


def _log_bessel_uniform(order: float, x: Tensor) -> Tensor:
    root = torch.sqrt(order**2 + x**2)
    powers, _ = _debye_sums(order, x)
    exponent = root + order * (x.log() - torch.log(order + root))
    return exponent - 0.5 * torch.log(2 * math.pi * root) + powers.log()


def _debye_sums(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """sum_k U_k(p) / v^k of I_v and sum_k V_k(p) / v^k of I_v', p = v / |(v, x)|."""
    p = order / torch.sqrt(order**2 + x**2)
    sums = []
    for table in _debye(TERMS):
        total = torch.zeros_like(x)
        for k, coefficients in enumerate(table):
            term = torch.zeros_like(x)
            for c in reversed(coefficients):
                term = term * p + c
            total = total + term / order**k
        sums.append(total)
    return sums[0], sums[1]


@lru_cache(maxsize=1)
def _debye(terms: int) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Coefficients of U_k(p) and V_k(p), lowest power first (DLMF 10.41.10 and 10.41.11).

    U_{k+1} = p^2 (1 - p^2) U_k' / 2 + int_0^p (1 - 5 t^2) U_k dt / 8,
    V_{k+1} = U_{k+1} - p (1 - p^2) U_k / 2 - p^2 (1 - p^2) U_k'.
    """
    u, v = [[Fraction(1)]], [[Fraction(1)]]
    for _ in range(terms):
        power = [Fraction(0)] * (len(u[-1]) + 3)
        slope = list(power)
        for n, c in enumerate(u[-1]):
            power[n + 1] += c * n / 2 + c / (8 * (n + 1))
            power[n + 3] -= c * n / 2 + 5 * c / (8 * (n + 3))
            slope[n + 1] -= c / 2 + c * n
            slope[n + 3] += c / 2 + c * n
        u.append(power)
        v.append([a + b for a, b in zip(power, slope, strict=True)])
    as_floats = tuple(tuple(tuple(float(c) for c in row) for row in table) for table in (u, v))
    return as_floats[0], as_floats[1]


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _log_uniform(count: int, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.log()


def _checked(kappa: Tensor, dim: int) -> tuple[Tensor, float]:
    if dim < 2:
        raise ValueError(f"dim must be >= 2, got {dim}")
    if not bool((kappa > 0).all()):
        raise ValueError("kappa must be > 0")
    return kappa.double(), dim / 2 - 1


def _unit(vector: Tensor, name: str) -> Tensor:
    vector = vector.double()
    off = (vector.detach().norm(dim=-1) - 1).abs().max().item()
    if not off < 1e-4:
        raise ValueError(f"{name} must be a unit vector, its length is off by {off:.2g}")
    return vector / vector.norm(dim=-1, keepdim=True)
