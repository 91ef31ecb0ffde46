"""VBench's totals from its dimensions (arXiv:2311.17982): what its leaderboard prints."""

from __future__ import annotations

from collections.abc import Mapping

RANGES = {
    "subject consistency": (0.1462, 1.0),
    "background consistency": (0.2615, 1.0),
    "temporal flickering": (0.6293, 1.0),
    "motion smoothness": (0.706, 0.9975),
    "dynamic degree": (0.0, 1.0),
    "aesthetic quality": (0.0, 1.0),
    "imaging quality": (0.0, 1.0),
    "object class": (0.0, 1.0),
    "multiple objects": (0.0, 1.0),
    "human action": (0.0, 1.0),
    "color": (0.0, 1.0),
    "spatial relationship": (0.0, 1.0),
    "scene": (0.0, 0.8222),
    "appearance style": (0.0009, 0.2855),
    "temporal style": (0.0, 0.364),
    "overall consistency": (0.0, 0.364),
}
"""Lowest and highest value of each dimension: raw scores are scaled to [0, 1] between them."""
QUALITY = tuple(RANGES)[:7]
SEMANTIC = tuple(RANGES)[7:]
DYNAMIC_WEIGHT = 0.5
QUALITY_SHARE = 0.8


def normalized(dimension: str, raw: float) -> float:
    """(raw - lowest) / (highest - lowest); ValueError for a dimension VBench has not."""
    if dimension not in RANGES:
        raise ValueError(f"no VBench dimension '{dimension}' (known: {', '.join(RANGES)})")
    low, high = RANGES[dimension]
    return (raw - low) / (high - low)


def quality_score(raw: Mapping[str, float]) -> float:
    """Weighted mean of the seven quality dimensions, dynamic degree counting half."""
    weights = {name: DYNAMIC_WEIGHT if name == "dynamic degree" else 1.0 for name in QUALITY}
    return _mean(raw, weights)


def semantic_score(raw: Mapping[str, float]) -> float:
    """Mean of the nine semantic dimensions."""
    return _mean(raw, dict.fromkeys(SEMANTIC, 1.0))


def total_score(quality: float, semantic: float) -> float:
    """(4 quality + semantic) / 5."""
    return QUALITY_SHARE * quality + (1 - QUALITY_SHARE) * semantic


def _mean(raw: Mapping[str, float], weights: Mapping[str, float]) -> float:
    missing = [name for name in weights if name not in raw]
    if missing:
        raise ValueError(f"no score for {', '.join(missing)}: a mean without it is another number")
    total = sum(weight * normalized(name, raw[name]) for name, weight in weights.items())
    return total / sum(weights.values())
