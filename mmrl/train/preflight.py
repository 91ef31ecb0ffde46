"""What can be found wrong with a run before its model loads, and what a model will not read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mmrl.config import ConfigError, Tree, apply_overrides
from mmrl.data.files import DataError, json_text, resolve
from mmrl.policies.video import ImageReader, VideoPolicy
from mmrl.recipe import PipelineConfig, Recipe

logger = logging.getLogger(__name__)
EXTENDABLE = "train.steps"


def check_before_loading(config: PipelineConfig) -> None:
    """ConfigError for a prompt file that is missing or empty, and a tracker not installed."""
    _check_files("prompts", config.prompts)
    if config.evaluate:
        _check_files("evaluate.prompts", config.evaluate.prompts)
    for tracker in config.train.trackers:
        if find_spec(tracker) is None:
            raise ConfigError(
                f"'{tracker}' is not installed; run: pip install {tracker}", key="train.trackers"
            )


def warn_of_unread_images(recipe: Recipe) -> None:
    """One line where prompts hold pictures and the video model is told texts alone."""
    policy = recipe.policy
    if not isinstance(policy, VideoPolicy) or isinstance(policy.model, ImageReader):
        return
    count = sum(bool(prompt.images) for prompt in recipe.prompts)
    if count:
        logger.warning(
            "prompts: %d of %d hold images, which %s does not read: it makes videos of text alone",
            count,
            len(recipe.prompts),
            type(policy.model).__name__,
        )


def extended(tree: Tree, overrides: Sequence[str]) -> Tree:
    """The config of a run that goes on for more steps; ConfigError for any other change.

    A learning rate that falls does so to the new last step.
    """
    for item in overrides:
        key = item.partition("=")[0].strip()
        if key != EXTENDABLE:
            raise ConfigError(
                f"a run goes on as it began, but for {EXTENDABLE}; `mmrl train` with another "
                "output begins another run",
                key=key,
            )
    changed = apply_overrides(tree, overrides)
    before, after = tree["train"]["steps"], changed["train"]["steps"]
    if isinstance(after, int) and after < before:
        raise ConfigError(f"a run of {before} steps gets more, not {after}", key=EXTENDABLE)
    return changed


def forget_end(run: Path) -> None:
    """Drop the evaluation after the last step, for the run gets another last step."""
    path = run / "evaluation.json"
    if path.exists():
        tree = json.loads(path.read_text("utf-8"))
        tree.pop("after", None)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json_text(tree, 1), encoding="utf-8")
        os.replace(temporary, path)


def _check_files(key: str, paths: str | Sequence[str]) -> None:
    for name in paths.split(",") if isinstance(paths, str) else paths:
        try:
            file = resolve(name.strip())
        except DataError as error:
            raise ConfigError(str(error), key=key) from error
        if not file.is_file():
            raise ConfigError(f"{file}: no such prompt file", key=key)
        if file.stat().st_size == 0:
            raise ConfigError(f"{file}: holds no prompts", key=key)
