"""Whether a reward reads coordinates in the frame that the model's processor makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.config import ConfigError
from mmrl.data.coordinates import Coordinates


def check_frames(rewards: Mapping[str, Any], processor: Any) -> None:
    """ConfigError names a reward whose `resized` coordinates have another factor or other bounds.

    A wrong bound would move every click without a sign of it. Processors that do not resize as
    Qwen-VL's do are left alone.
    """
    image = getattr(processor, "image_processor", None)
    size, patch = getattr(image, "size", None), getattr(image, "patch_size", None)
    merge = getattr(image, "merge_size", None)
    if size is None or patch is None or merge is None or size["longest_edge"] is None:
        return
    theirs = {
        "factor": patch * merge,
        "min_pixels": size["shortest_edge"],
        "max_pixels": size["longest_edge"],
    }
    for name, reward in rewards.items():
        ours = getattr(reward, "coordinates", None)
        if isinstance(ours, Coordinates) and ours.space == "resized":
            for key, value in theirs.items():
                if getattr(ours, key) != value:
                    raise ConfigError(
                        f"is {getattr(ours, key)}, but the model's processor has {value}: clicks "
                        f"would be read at other places; set it to {value}",
                        key=f"rewards.{name}.coordinates.{key}",
                    )
