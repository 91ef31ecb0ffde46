"""A run from its config to its last checkpoint, and again from any of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmrl.config import ConfigError, UserError, dump, numbers_as_floats, parse, read_yaml
from mmrl.data.prompts import PromptStream
from mmrl.evaluate.runner import evaluate, write_evaluation, write_gallery
from mmrl.recipe import PipelineConfig, Recipe, TrainConfig, pipelines
from mmrl.registry import UnknownNameError
from mmrl.train.alarm import RewardHackingError, respond
from mmrl.train.checkpoint import load_checkpoint, newest_sound, save_checkpoint
from mmrl.train.metrics import MetricsFile
from mmrl.train.optimizer import adamw
from mmrl.train.preflight import (
    check_before_loading,
    extended,
    forget_end,
    warn_of_unread_images,
)
from mmrl.train.ranks import Ranks
from mmrl.train.reward_end import forget_reward_error, noting_reward_errors, recall_faults
from mmrl.train.run_folder import check_new, is_run
from mmrl.train.state import TrainState
from mmrl.train.step import train_step
from mmrl.train.stop import StopFlag, stop_on_signal
from mmrl.trust_region.schedule import averages
from mmrl.trust_region.weights import Anchor, take_snapshot, trainable
from mmrl.types import Metrics
from mmrl.versions import versions
from mmrl.video_recipe import processes_a_sample


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Path
    step: int
    stopped: bool


def load_config(tree: dict) -> PipelineConfig:
    """The frozen config of the pipeline that the tree names."""
    name = tree.get("pipeline")
    if not isinstance(name, str):
        raise ConfigError("missing; the first line of a config names its pipeline", key="pipeline")
    try:
        schema = pipelines.get(name)
    except UnknownNameError as error:
        raise ConfigError(str(error), key="pipeline") from error
    return parse(schema, numbers_as_floats(tree))


def start(config: PipelineConfig) -> Outcome:
    """A new run in `config.output`; ConfigError where something lies there already."""
    run = Path(config.output)
    check_new(run)
    return _run(config, run, resume=False)


def resume(run: Path, overrides: Sequence[str] = ()) -> Outcome:
    """Continue a run from its newest sound checkpoint, or from the start if it saved none yet.

    `train.steps` alone may be changed, to a larger number.
    """
    if not (run / "config.yaml").is_file() or not is_run(run):
        raise UserError(f"{run} holds no run: config.yaml and versions.json are not both there")
    before = read_yaml(run / "config.yaml")
    tree = extended(before, overrides)
    config = load_config(tree)
    if tree != before:
        forget_end(run)
    return _run(config, run, resume=True)


def _run(config: PipelineConfig, run: Path, *, resume: bool) -> Outcome:
    check_before_loading(config)
    accelerator = Accelerator(log_with=list(config.train.trackers) or None, project_dir=run)
    ranks = Ranks(accelerator, processes_a_sample(config))
    check_ranks(config.train, ranks)
    if ranks.is_main:
        _write_heading(config, run)
    recipe, state = prepare(config, ranks)
    if ranks.is_main:
        warn_of_unread_images(recipe)
    metrics = MetricsFile(run / "metrics.jsonl")
    found = newest_sound(run / "checkpoints") if resume else None
    if found is not None:
        load_checkpoint(found, recipe.policy.module, state)
        recall_faults(recipe.rewards, state, run, accelerator.process_index)
    accelerator.wait_for_everyone()
    if ranks.is_main:
        metrics.keep_through(state.step)
    if config.train.trackers:
        accelerator.init_trackers("mmrl", config={"pipeline": config.pipeline})
    with stop_on_signal() as flag:
        flag.quiet = not ranks.is_main
        _evaluate_once(config, recipe, run, "before", ranks, due=state.step == 0)
        stopped = _steps(config, recipe, state, run, metrics, ranks, flag)
        if not stopped:
            _evaluate_once(config, recipe, run, "after", ranks, due=True)
            if ranks.is_main:
                recipe.policy.save_pretrained(run / "model")
    accelerator.end_training()
    return Outcome(run, state.step, stopped)


def prepare(config: PipelineConfig, ranks: Ranks) -> tuple[Recipe, TrainState]:
    """The model loaded on its device, and the state before step 1; both follow from the seed."""
    torch.manual_seed(config.train.seed)
    recipe = config.build()
    recipe.policy.to(ranks.accelerator.device)
    return recipe, initial_state(recipe, config.train)


def initial_state(recipe: Recipe, config: TrainConfig) -> TrainState:
    """The state before step 1: fresh optimizer, every anchor a copy of the policy."""
    learning = trainable(recipe.policy.module)
    if not learning:
        raise ConfigError("no weight of the model learns; add lora or unfreeze it", key="model")
    chosen = config.optimizer
    optimizer = adamw(
        [(list(learning.values()), chosen.lr)],
        betas=(chosen.beta1, chosen.beta2),
        eps=chosen.eps,
        weight_decay=chosen.weight_decay,
    )
    return TrainState(
        optimizer=optimizer,
        generator=torch.Generator().manual_seed(config.seed),
        stream=PromptStream(recipe.prompts, config.seed),
        anchors={
            kind: Anchor(take_snapshot(recipe.policy.module, average=averages(anchor)))
            for kind, anchor in recipe.trust_region.anchors().items()
        },
    )


def check_ranks(config: TrainConfig, ranks: Ranks) -> None:
    """ConfigError unless every process gets the same number of whole groups."""
    if ranks.world % ranks.copies:
        return  # the model says which number of processes would fit
    if config.prompts_per_step % ranks.shares:
        raise ConfigError(
            f"{config.prompts_per_step} prompts do not spread evenly over {ranks.shares} processes",
            key="train.prompts_per_step",
        )
    own = config.prompts_per_step // ranks.shares
    if own % config.minibatches:
        raise ConfigError(
            f"{own} prompts a process do not spread evenly over {config.minibatches} minibatches",
            key="train.minibatches",
        )


def _steps(
    config: PipelineConfig,
    recipe: Recipe,
    state: TrainState,
    run: Path,
    metrics: MetricsFile,
    ranks: Ranks,
    flag: StopFlag,
) -> bool:
    """Train to the last step; True where a signal ended it early."""
    train = config.train
    with _progress(disable=not ranks.is_main) as bar:
        task = bar.add_task(config.pipeline, total=train.steps, completed=state.step, note="")
        while state.step < train.steps:
            with noting_reward_errors(run):
                found = train_step(recipe, state, train, ranks)
            if train.alarm:
                found |= respond(train.alarm, recipe, state, found)
            hacked = bool(train.alarm and train.alarm.action == "stop" and found["alarm/rung"])
            stopping = hacked or ranks.any(flag.raised)
            due = stopping or state.step % train.save_every == 0 or state.step == train.steps
            if due:
                state.faults = ranks.everyone(recipe.rewards.memory())
            if ranks.is_main:
                metrics.write(state.step, found)
                ranks.accelerator.log(found, step=state.step)
                if due:
                    save_checkpoint(
                        run / "checkpoints",
                        recipe.policy.module,
                        state,
                        keep=train.keep_checkpoints,
                    )
                    forget_reward_error(run)
            bar.update(task, completed=state.step, note=_note(found))
            if hacked:
                raise RewardHackingError(
                    f"stopped at step {state.step}: a watched reward falls while a trained one "
                    f"rises; {run} holds the checkpoint, `mmrl report {run}` the curves"
                )
            if stopping and state.step < train.steps:
                return True
    return False


def _evaluate_once(
    config: PipelineConfig, recipe: Recipe, run: Path, when: str, ranks: Ranks, *, due: bool
) -> None:
    """Evaluate on the main process, unless the result is there already."""
    path = run / "evaluation.json"
    known = path.exists() and when in json.loads(path.read_text("utf-8"))
    if config.evaluate and due and not known and ranks.evaluates:
        found = evaluate(recipe, config.evaluate)
        if ranks.is_main:
            write_gallery(run, when, found, config.evaluate.gallery)
            write_evaluation(run, when, recipe, found)
    ranks.accelerator.wait_for_everyone()


def _progress(*, disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=disable,
    )


def _note(metrics: Metrics) -> str:
    return f"reward {metrics['reward/mean']:.3f}  clipped {metrics.get('clip_fraction', 0):.1%}"


def _write_heading(config: PipelineConfig, run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(dump(config), encoding="utf-8")
    (run / "versions.json").write_text(json.dumps(versions(), indent=1), encoding="utf-8")
