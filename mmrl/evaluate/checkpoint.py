"""Score the weights that a run saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmrl.config import UserError, apply_overrides, read_yaml
from mmrl.evaluate.result import Result, read_result
from mmrl.evaluate.runner import evaluate, write_evaluation
from mmrl.train.checkpoint import load_weights, newest_sound
from mmrl.train.loop import load_config


def evaluate_run(run: Path, overrides: Sequence[str]) -> Result:
    """The newest sound checkpoint on the config's held-out prompts.

    It is filed in the run's evaluation.json and evaluations/ under the name of the checkpoint.
    """
    tree = apply_overrides(read_yaml(run / "config.yaml"), overrides)
    config = load_config(tree)
    if config.evaluate is None:
        raise UserError(f"{run}/config.yaml has no `evaluate` section; add evaluate.prompts=FILE")
    found = newest_sound(run / "checkpoints")
    if found is None:
        raise UserError(f"{run} holds no sound checkpoint to evaluate")
    recipe = config.build()
    load_weights(found, recipe.policy.module)
    write_evaluation(run, found.name, recipe, evaluate(recipe, config.evaluate))
    return read_result(run / "evaluations" / found.name)
