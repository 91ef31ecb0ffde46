"""What may stand in the place of PPO's clip: the `surrogate:` section, a kind each.

r is a decision's ratio pi / behavior, A its advantage, sg[] a constant. Sequence ratios are taken
over the live decisions of a row.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mmrl.config import Config
from mmrl.objectives.clipped import Clip
from mmrl.objectives.surrogate import LARGEST_LOG_RATIO, Decisions, Terms

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
VESPO_LOG_RANGE = (math.log(1e-8), 20.0)
"""Where VESPO holds the log of a row's ratio."""


class SurrogateKind(Config):
    """A section that is a surrogate."""

    mixes_decisions: ClassVar[bool] = False

    def __call__(self, decisions: Decisions) -> Terms:
        """The gain of every decision, or of every row."""
        raise NotImplementedError


class Gspo(SurrogateKind):
    """min(s A, clip(s, 1 - low, 1 + high) A), s = exp(mean_t log r) (GSPO, arXiv:2507.18071).

    A row is clipped as a whole. `sum` takes s = exp(sum_t log r), the likelihood ratio of the whole
    answer, which is RLOO's: set `low` and `high` to 0.2 for it, as TRL does.
    """

    mixes_decisions: ClassVar[bool] = True
    kind: Literal["gspo"]
    low: Share = 3e-4
    high: Positive = 4e-4
    over: Literal["mean", "sum"] = "mean"

    def __call__(self, decisions: Decisions) -> Terms:
        rows = decisions.row_means() if self.over == "mean" else decisions.row_sums()
        held = rows.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        one = Decisions(held, held, decisions.advantages, decisions.live.any(1, keepdim=True))
        return Clip(self.low, self.high)(one)


class Cispo(SurrogateKind):
    """sg[min(r, cap)] A log pi: no decision loses its gradient (CISPO, arXiv:2506.13585).

    `cap` is a ratio, TRL's epsilon_high; verl's bounds are `cispo_band`. The loss is no estimate of
    the return.
    """

    kind: Literal["cispo"]
    cap: Positive = 5.0

    def __call__(self, decisions: Decisions) -> Terms:
        ratio = decisions.log_ratio.detach().exp()
        high = (ratio > self.cap) & (decisions.advantages > 0)
        gain = ratio.clamp(max=self.cap) * decisions.advantages * decisions.log_probs
        return Terms(gain, torch.zeros_like(high), high)


class CispoBand(SurrogateKind):
    """sg[clip(r, 1 - low, 1 + high)] A log pi: CISPO as verl and EasyR1 have it."""

    kind: Literal["cispo_band"]
    low: Share = 0.2
    high: Positive = 0.2

    def __call__(self, decisions: Decisions) -> Terms:
        ratio = decisions.log_ratio.detach().exp()
        weight = ratio.clamp(1 - self.low, 1 + self.high)
        gain = weight * decisions.advantages * decisions.log_probs
        return Terms(gain, ratio < 1 - self.low, ratio > 1 + self.high)


class Sapo(SurrogateKind):
    """(4 / tau) sigmoid(tau (r - 1)) A: a slope of 1 at r = 1 that falls both ways (SAPO,
    arXiv:2511.20347). tau is `tau_positive` where A > 0, else `tau_negative`.
    """

    kind: Literal["sapo"]
    tau_positive: Positive = 1.0
    tau_negative: Positive = 1.05

    def __call__(self, decisions: Decisions) -> Terms:
        advantages = decisions.advantages
        tau = either(advantages > 0, self.tau_positive, self.tau_negative, like=advantages)
        gain = 4 / tau * torch.sigmoid(tau * (decisions.log_ratio.exp() - 1)) * advantages
        return Terms(gain, *nowhere(decisions))


class Gmpo(SurrogateKind):
    """exp(mean_t clipped log r) A, the geometric mean (GMPO, arXiv:2507.20673).

    log r is cut above `log_high` where A > 0 and below -`log_low` where A < 0.
    """

    mixes_decisions: ClassVar[bool] = True
    kind: Literal["gmpo"]
    log_low: Positive = 0.4
    log_high: Positive = 0.4

    def __call__(self, decisions: Decisions) -> Terms:
        log_ratio, good = decisions.log_ratio, decisions.advantages > 0
        cut = torch.where(
            good, log_ratio.clamp(max=self.log_high), log_ratio.clamp(min=-self.log_low)
        )
        count = decisions.live.sum(1, keepdim=True).clamp(min=1)
        gain = (cut.sum(1, keepdim=True) / count).exp() * decisions.advantages
        bad = decisions.advantages < 0
        return Terms(gain, (log_ratio < -self.log_low) & bad, (log_ratio > self.log_high) & good)


class Vespo(SurrogateKind):
    """sg[exp(lam + k log W - lam W)] A log pi, W = exp(sum_t log r) (VESPO, arXiv:2602.10693).

    A smooth weight of the whole row that is 1 at W = 1; k and lam by the sign of A.
    """

    mixes_decisions: ClassVar[bool] = True
    kind: Literal["vespo"]
    k_positive: Positive = 2.0
    lam_positive: Positive = 3.0
    k_negative: Positive = 3.0
    lam_negative: Positive = 2.0

    def __call__(self, decisions: Decisions) -> Terms:
        good = decisions.advantages >= 0
        k = either(good, self.k_positive, self.k_negative, like=decisions.log_ratio)
        lam = either(good, self.lam_positive, self.lam_negative, like=decisions.log_ratio)
        log_weight = decisions.row_sums().detach().clamp(*VESPO_LOG_RANGE)
        weight = (lam + k * log_weight - lam * log_weight.exp()).exp()
        gain = weight * decisions.advantages * decisions.log_probs
        return Terms(gain, *nowhere(decisions))


class Dppo(SurrogateKind):
    """sg[min(r, cap)] A log pi on tokens that have not moved too far already (DPPO, as in verl).

    Left out: pi - behavior > `delta_high` where A > 0, and < -`delta_low` where A < 0. The distance
    is one of probabilities, so likely tokens are held where a ratio would let them go on, and
    unlikely ones may move. Tokens only: a density is no probability.
    """

    kind: Literal["dppo"]
    delta_low: Share = 0.05
    delta_high: Share = 0.05
    cap: Positive = 20.0

    def __call__(self, decisions: Decisions) -> Terms:
        advantages, log_ratio = decisions.advantages, decisions.log_ratio.detach()
        now = decisions.log_probs.detach().exp()
        moved = now - (decisions.log_probs.detach() - log_ratio).exp()
        high = (moved > self.delta_high) & (advantages > 0)
        low = (moved < -self.delta_low) & (advantages < 0)
        weight = torch.where(high | low, 0.0, log_ratio.exp().clamp(max=self.cap))
        return Terms(weight * advantages * decisions.log_probs, low, high)


class R2vpo(SurrogateKind):
    """r A - lam (r - 1)^2: a soft bound on the variance of the ratio (R2VPO).

    The slope is (A - 2 lam (r - 1)) r: no decision is cut off, and one that ran ahead is pulled
    back. A ratio near 0 is held by lam at most.
    """

    kind: Literal["r2vpo"]
    lam: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.04

    def __call__(self, decisions: Decisions) -> Terms:
        ratio = decisions.log_ratio.exp()
        gain = ratio * decisions.advantages - self.lam * (ratio - 1).square()
        return Terms(gain, *nowhere(decisions))


SurrogateConfig = Annotated[
    Gspo | Cispo | CispoBand | Sapo | Gmpo | Vespo | Dppo | R2vpo, Field(discriminator="kind")
]


def nowhere(decisions: Decisions) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """No bound in force, below or above."""
    none = torch.zeros_like(decisions.live)
    return none, none


def either(
    condition: Bool[Tensor, "B 1"], yes: float, no: float, *, like: Tensor
) -> Float[Tensor, "B 1"]:
    """One of two numbers a row, in the dtype of `like`."""
    return torch.where(condition, like.new_tensor(yes), like.new_tensor(no))
