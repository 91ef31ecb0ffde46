"""Rewards by name, one file each."""

from rewards import (
    accuracy,
    answer_format,
    clip_score,
    motion_direction,
    multiple_choice,
    pick_score,
    smoothness,
)

__all__ = [
    "accuracy",
    "answer_format",
    "clip_score",
    "motion_direction",
    "multiple_choice",
    "pick_score",
    "smoothness",
]
