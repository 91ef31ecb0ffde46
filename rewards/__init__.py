"""Rewards by name, one file each."""

from rewards import clip_score, motion_direction, pick_score, smoothness

__all__ = ["clip_score", "motion_direction", "pick_score", "smoothness"]
