"""Proximal reward difference prediction: regress log-ratios of whole paths on reward differences.

A path is one sample's T decisions. Its log-ratio to the reference must equal reward / beta up to a
constant of the prompt, so only differences inside a group count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmrl.ops.gaussian import step_log_ratios
from mmrl.types import Actions, ActionStats, Metrics, Rollout

StepReduction = Literal["mean", "sum"]
PairSet = Literal["strict", "all"]


def prdp_loss(
    log_probs: Float[Tensor, "G T"],
    behavior: Float[Tensor, "G T"],
    reference: Float[Tensor, "G T"],
    rewards: Float[Tensor, " G"],
    *,
    beta: float,
    clip: float | None,
    step_reduction: StepReduction = "mean",
    pairs: PairSet = "strict",
    step_mask: Bool[Tensor, " T"] | None = None,
    moved: Float[Tensor, "2 G T"] | None = None,
) -> tuple[Float[Tensor, ""], Metrics]:
    """mean_ab max(delta^2, clipped delta^2) over the pairs of one group (PRDP, arXiv:2402.08714).

    delta = rhat_a - rhat_b - (r_a - r_b) / beta, rhat = mean or sum over steps of log pi - log ref;
    the clipped delta holds every step's log pi - log behavior in [-clip, clip] (None: no clip).
    Pairs: those of different rewards ("strict") or all. A sample of reward NaN is in no pair; a
    group without a pair gives 0. The first derivative is exact, a second one is not defined.
    `moved`: log pi - log behavior and log behavior - log ref from better than their difference,
    as float32 log-probs of size 1 do not resolve a clip of 1e-6 (`ops.gaussian.log_ratio`).
    `r2` is the squared correlation of log-ratio and reward gaps over the pairs.
    """
    _check_settings(beta, clip)
    live = _live_entries(log_probs, behavior, reference, rewards, step_mask)
    current = torch.where(live, log_probs, 0.0)
    if moved is None:
        moved = torch.stack([log_probs.detach() - behavior, behavior - reference])
    drift, start = torch.where(live, moved, 0.0)
    bounded = drift if clip is None else drift.clamp(-clip, clip)
    usable = _usable_pairs(rewards, pairs)
    target = torch.where(usable, _gaps(rewards) / beta, 0.0).to(drift.dtype)
    share = 1.0 / live.any(0).sum().clamp(min=1).item() if step_reduction == "mean" else 1.0
    log_ratios = share * (drift + start).sum(1)
    residual = _gaps(log_ratios) - target
    excess = _gaps(share * (drift - bounded).sum(1))
    value, slope, clipped = _max_of_squares(residual, excess, usable)
    slopes = live * (share * (slope[0][:, None] + slope[1][:, None] * (drift == bounded)))
    loss = value + (slopes * (current - current.detach())).sum()
    num_pairs = usable.sum().item() / 2
    held = drift != bounded
    return loss, {
        "log_ratio": log_ratios.sum().item() / max(live.any(1).sum().item(), 1),
        "residual": (usable * residual.abs()).sum().item() / max(2 * num_pairs, 1),
        "r2": _squared_correlation(_gaps(log_ratios), target, usable),
        "clip_fraction": held.sum().item() / max(live.sum().item(), 1),
        **_by_step("clip_fraction", held, live),
        "clipped_pairs": clipped.item(),
        "pairs": num_pairs,
    }


def _squared_correlation(
    gaps: Float[Tensor, "G G"], target: Float[Tensor, "G G"], usable: Bool[Tensor, "G G"]
) -> float:
    """(sum x y)^2 / (sum x^2 sum y^2) over pairs, both ways round so that means are 0; 0 of 0."""
    x, y = (torch.where(usable, table.double(), 0.0) for table in (gaps, target))
    spread = x.square().sum() * y.square().sum()
    return ((x * y).sum().square() / spread).item() if spread > 0 else 0.0


def _by_step(name: str, found: Bool[Tensor, "G T"], live: Bool[Tensor, "G T"]) -> Metrics:
    """Shares of the samples that count, by place among the trained steps."""
    shares = (found & live).sum(0) / live.sum(0).clamp(min=1)
    return {f"{name}/step_{step}": share for step, share in enumerate(shares.tolist())}


def _max_of_squares(
    residual: Float[Tensor, "G G"], excess: Float[Tensor, "G G"], usable: Bool[Tensor, "G G"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "2 G"], Float[Tensor, ""]]:
    """Mean of max(delta^2, (delta - excess)^2), its slopes, the share of pairs on the second.

    Slopes are those of each path's log-ratio through the first and through the second square. The
    branch is the sign of a product: float32 rounds two large squares to equality.
    """
    held = residual - excess
    free = (1 + torch.sign(excess * (2 * residual - excess))) / 2
    # Both squares of a pair stand on either side of the diagonal: 2 in one, 1 in the other.
    count = usable.sum().clamp(min=1)
    value = (usable * torch.maximum(residual.square(), held.square())).sum() / count
    slopes = torch.stack([(usable * free * residual).sum(1), (usable * (1 - free) * held).sum(1)])
    clipped = (usable * (excess != 0) * (1 - free)).sum() / count
    return value, 4 * slopes / count, clipped


def _gaps(values: Float[Tensor, " G"]) -> Float[Tensor, "G G"]:
    return values[:, None] - values[None, :]


def _usable_pairs(rewards: Float[Tensor, " G"], pairs: PairSet) -> Bool[Tensor, "G G"]:
    scored = ~rewards.isnan()
    same = torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)
    differ = _gaps(rewards) != 0 if pairs == "strict" else ~same
    return differ & scored[:, None] & scored[None, :]


def _check_settings(beta: float, clip: float | None) -> None:
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be a finite number > 0, got {beta}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}; null (None) switches it off")


def _live_entries(
    log_probs: Float[Tensor, "G T"],
    behavior: Float[Tensor, "G T"],
    reference: Float[Tensor, "G T"],
    rewards: Float[Tensor, " G"],
    step_mask: Bool[Tensor, " T"] | None,
) -> Bool[Tensor, "G T"]:
    """Steps of scored samples that count; ValueError for anything no loss can be formed of."""
    tables = {"log_probs": log_probs, "behavior": behavior, "reference": reference}
    _check_shapes(tables, rewards)
    for name in ("behavior", "reference"):
        if tables[name].requires_grad:
            raise ValueError(f"{name} must be a constant, but it carries a gradient; detach it")
    if torch.finfo(log_probs.dtype).bits < 32:
        raise ValueError(
            f"log_probs must be float32 or wider, got {log_probs.dtype}: a step drifts by less"
            " than its rounding; cast means to float32 before the log-prob"
        )
    if step_mask is not None and not bool(step_mask.any()):
        raise ValueError("step_mask has no live step: PRDP needs stochastic steps in the rollout")
    if bool(rewards.isinf().any()):
        sample = int(rewards.isinf().nonzero()[0])
        raise ValueError(
            f"rewards[{sample}] must be finite, got {rewards[sample].item()};"
            " a sample that could not be scored is NaN"
        )
    live = (~rewards.isnan())[:, None].expand_as(log_probs)
    live = live if step_mask is None else live & step_mask
    for name, table in tables.items():
        bad = live & ~table.isfinite()
        if bool(bad.any()):
            sample, step = bad.nonzero()[0].tolist()
            found = table[sample, step].item()
            raise ValueError(f"{name} of sample {sample}, step {step} must be finite, got {found}")
    return live


def _check_shapes(tables: Mapping[str, Tensor], rewards: Tensor) -> None:
    rows = len(rewards)
    if rows < 2:
        raise ValueError(f"a group needs >= 2 samples to form a pair, got {rows}")
    shapes = {name: tuple(table.shape) for name, table in tables.items()}
    if len(set(shapes.values())) > 1 or len(tables["log_probs"]) != rows:
        raise ValueError(f"expected ({rows}, T) for each of {list(shapes)}, got {shapes}")


@dataclass(frozen=True)
class Prdp:
    """PRDP as an objective of denoising steps: mean of `prdp_loss` over the prompts of a batch.

    `nats` is the mean log-ratio of a whole path to the reference, as a sum over elements and steps.

    `advantages` are raw rewards, NaN where a sample was not scored. A prompt's share is the sum of
    its rows' weights; a prompt without a usable pair adds 0 and is counted in `skipped_groups`.
    Steps of weight 0 are masked. The reference is the fixed anchor.
    """

    couples_decisions = True
    beta: float
    clip: float | None
    step_reduction: StepReduction = "mean"
    pairs: PairSet = "strict"
    min_std: float = 1e-3
    """Smallest standard deviation of a step whose density means anything."""

    def __post_init__(self) -> None:
        _check_settings(self.beta, self.clip)

    def __call__(
        self,
        current: Actions,
        anchors: Mapping[str, Actions],
        batch: Rollout,
        advantages: Float[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Loss, and metrics weighted like it; `pairs` and `skipped_groups` are counts."""
        self._check(anchors, batch)
        weights, size = batch.weights["denoise"], batch.group_size
        mean = current["denoise"].mean
        moved = _moved(current["denoise"], anchors["fixed"]["denoise"], batch)
        total = torch.zeros((), device=advantages.device)
        metrics: Metrics = {"pairs": 0.0, "skipped_groups": 0.0}
        for first in range(0, len(batch), size):
            group = slice(first, first + size)
            share = weights[group].sum().item()
            if share == 0:
                metrics["skipped_groups"] += 1
                continue
            mask = _step_mask(weights[group])
            loss, found = prdp_loss(
                current["denoise"].log_probs[group],
                batch.behavior["denoise"].log_probs[group],
                anchors["fixed"]["denoise"].log_probs[group],
                advantages[group],
                beta=self.beta,
                clip=self.clip,
                step_reduction=self.step_reduction,
                pairs=self.pairs,
                step_mask=mask,
                moved=None if moved is None else moved[:, group],
            )
            if mean is not None:
                steps = mask.sum().item() if self.step_reduction == "mean" else 1
                found["nats"] = found["log_ratio"] * mean.shape[-1] * steps
            total = total + share * loss
            metrics["skipped_groups"] += float(found["pairs"] == 0)
            for name, value in found.items():
                scaled = value if name == "pairs" else share * value
                metrics[name] = metrics.get(name, 0.0) + scaled
        return total, metrics

    def _check(self, anchors: Mapping[str, Actions], batch: Rollout) -> None:
        if "fixed" not in anchors:
            raise ValueError(
                "PRDP measures log-ratios against the fixed anchor, got anchors"
                f" {sorted(anchors)}; set trust_region.fixed (a coefficient of 0 will do)"
            )
        if "denoise" in batch.scales:
            raise ValueError("PRDP adds a path's steps with equal weight; switch step scales off")
        if len(batch) % batch.group_size:
            raise ValueError(
                f"{len(batch)} rows cut a group of {batch.group_size}; use a multiple of it"
            )
        for row, sample in enumerate(batch.samples):
            if sample.prompt != batch.samples[row - row % batch.group_size].prompt:
                raise ValueError(f"row {row} has another prompt than the first row of its group")
        self._check_std(batch)

    def _check_std(self, batch: Rollout) -> None:
        std = batch.behavior["denoise"].scale
        if std is None:
            return
        low = (batch.weights["denoise"] != 0) & ~(std >= self.min_std)
        if bool(low.any()):
            row, step = low.nonzero()[0].tolist()
            raise ValueError(
                f"std of step {step} must be >= {self.min_std}, got {std[row, step].item()};"
                " train stochastic steps only and leave out the last one"
            )


def _moved(
    current: ActionStats, reference: ActionStats, batch: Rollout
) -> Float[Tensor, "2 B T"] | None:
    """log pi - log behavior and log behavior - log ref of every step by `ops.gaussian.log_ratio`.

    None where the means or the sampled states are not known.
    """
    behavior, drawn = batch.behavior["denoise"], batch.drawn.get("denoise")
    if drawn is None or behavior.scale is None:
        return None
    if current.mean is None or behavior.mean is None or reference.mean is None:
        return None
    std = torch.where(behavior.scale > 0, behavior.scale, 1.0)
    drift = step_log_ratios(drawn, current.mean.detach(), behavior.mean, std)
    return torch.stack([drift, step_log_ratios(drawn, behavior.mean, reference.mean, std)])


def _step_mask(weights: Float[Tensor, "G T"]) -> Bool[Tensor, " T"]:
    live = weights != 0
    if bool((live != live[0]).any()):
        raise ValueError("samples of one group must count the same steps; redraw steps per prompt")
    return live[0]
