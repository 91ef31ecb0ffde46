"""Rewards by name, one file each."""

from rewards import (
    accuracy,
    answer_format,
    clip_score,
    gui_click,
    gui_format,
    gui_gaussian,
    gui_step,
    motion_direction,
    multiple_choice,
    pick_score,
    smoothness,
    ssl_click,
    ssl_grid,
    thinking_reward,
    unified_reward,
    vlm_judge,
)

__all__ = [
    "accuracy",
    "answer_format",
    "clip_score",
    "gui_click",
    "gui_format",
    "gui_gaussian",
    "gui_step",
    "motion_direction",
    "multiple_choice",
    "pick_score",
    "smoothness",
    "ssl_click",
    "ssl_grid",
    "thinking_reward",
    "unified_reward",
    "vlm_judge",
]
