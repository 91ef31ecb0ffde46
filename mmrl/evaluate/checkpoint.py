"""Score the weights that a run saved."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mmrl.config import UserError, apply_overrides, read_yaml
from mmrl.data.files import json_text
from mmrl.evaluate.files import describe
from mmrl.evaluate.result import Result, read_result
from mmrl.evaluate.runner import draws, evaluate, weights_hash, write_evaluation
from mmrl.recipe import EvaluateConfig, Recipe
from mmrl.train.checkpoint import load_weights, newest_sound
from mmrl.train.loop import load_config


class NothingToEvaluateError(UserError):
    """A run without held-out prompts, or without a checkpoint."""


def evaluate_run(run: Path, overrides: Sequence[str]) -> tuple[Path, Result]:
    """The newest sound checkpoint on the config's held-out prompts, and the folder of its files.

    It is filed in the run's evaluation.json and evaluations/ under the name of the checkpoint and
    of the overrides. UserError where another evaluation lies there.
    """
    tree = apply_overrides(read_yaml(run / "config.yaml"), overrides)
    config = load_config(tree)
    if config.evaluate is None:
        raise NothingToEvaluateError(
            f"{run}/config.yaml has no `evaluate` section; add evaluate.prompts=FILE"
        )
    found = newest_sound(run / "checkpoints")
    if found is None:
        raise NothingToEvaluateError(f"{run} holds no sound checkpoint to evaluate")
    name = file_name(found.name, overrides)
    folder = run / "evaluations" / name
    recipe = config.build()
    load_weights(found, recipe.policy.module)
    if folder.exists():
        _check_same(folder, recipe, config.evaluate)
    write_evaluation(run, name, recipe, evaluate(recipe, config.evaluate))
    return folder, read_result(folder)


def file_name(checkpoint: str, overrides: Sequence[str]) -> str:
    """The checkpoint and what was asked of it beside its config, such as `step-000010-count=8`."""
    asked = sorted(item.strip().removeprefix("evaluate.") for item in overrides)
    return "-".join([checkpoint, *(re.sub(r"[^\w.=]+", "_", item) for item in asked)])


def _check_same(folder: Path, recipe: Recipe, config: EvaluateConfig) -> None:
    """UserError unless the evaluation in `folder` is of these weights, samples and rewards."""
    there, rows = read_result(folder), draws(config)
    asked = [(prompt.text, prompt.answer, seed) for _, prompt, seed in rows]
    if there.subject.get("sha256") != weights_hash(recipe.policy.module):
        other = "of other weights"
    elif len(there.rows) != len(asked):
        other = f"of {len(there.rows)} samples, this one has {len(asked)}"
    elif [(row.prompt, row.answer, row.seed) for row in there.rows] != asked:
        other = "of other prompts or seeds"
    elif there.scorers != json.loads(json_text(describe(recipe.rewards))):
        other = "by other rewards"
    else:
        return
    raise UserError(
        f"{folder} holds an evaluation {other}; move it away, or name what differs on the command "
        f"line, such as evaluate.count={config.count}: the folder's name then says so"
    )
