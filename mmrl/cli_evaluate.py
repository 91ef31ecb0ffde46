"""The verbs that measure: eval, score, compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrl.config import ConfigError, UserError
from mmrl.registry import nearest_hint

if TYPE_CHECKING:
    from mmrl.evaluate.result import Result
    from mmrl.reward import RewardTable

Rewards = Annotated[
    str | None,
    typer.Option(help="Names with commas, or a YAML file with a `rewards:` section."),
]
Fields = Annotated[
    list[str] | None, typer.Option("--set", help="A reward's field: clip_score.model=FOLDER")
]
Output = Annotated[Path | None, typer.Option(help="Folder for the report's files.")]
Text = Annotated[str | None, typer.Option(help="The prompt of all files.")]


def evaluate(
    target: Annotated[Path, typer.Argument(help="A run, a folder of runs, or of samples.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for runs.")] = None,
    rewards: Rewards = None,
    fields: Fields = None,
    output: Output = None,
) -> None:
    """Score a run's newest checkpoint on its held-out prompts, or a folder of finished samples.

    A folder of runs is scored run by run, and shown as a table of runs against modalities.
    """
    if rewards is not None:
        score([target], rewards=rewards, fields=fields, prompt=None, output=output)
        return
    from mmrl.cli_tables import print_metrics
    from mmrl.evaluate.checkpoint import NothingToEvaluateError, evaluate_run
    from mmrl.report.run import find_runs

    runs = [target] if (target / "config.yaml").is_file() else find_runs(target)
    results: dict[str, Result] = {}
    for run in runs:
        try:
            folder, result = evaluate_run(run, overrides or [])
        except NothingToEvaluateError as error:
            if len(runs) == 1:
                raise
            typer.echo(f"skipped: {error}", err=True)
            continue
        results[run.name] = result
        typer.echo(f"{run.name}, {result.subject['weights']}")
        print_metrics(result)
        typer.echo(f"wrote {folder}/report.json, summary.md, summary.csv, samples.jsonl")
    if not results:
        raise UserError(f"{target}: none of its {len(runs)} runs can be evaluated")
    if len(results) > 1:
        _print_matrices(results)
    for result in results.values():
        _require_scores(result)


def score(
    files: Annotated[list[Path], typer.Argument(help="Videos, pictures, JSONL files, folders.")],
    rewards: Rewards = None,
    fields: Fields = None,
    prompt: Text = None,
    output: Output = None,
) -> None:
    """Score finished samples with rewards by name; no model is run but the rewards' own."""
    from mmrl.cli_tables import print_metrics, print_rows
    from mmrl.evaluate.files import score_files
    from mmrl.evaluate.result import write_result
    from mmrl.evaluate.samples import find_samples
    from mmrl.reward.base import reads_prompt

    if rewards is None:
        raise UserError("score needs --rewards NAME,NAME; `mmrl list` names them")
    table = _table(rewards, fields or [])
    asked = any(map(reads_prompt, table.rewards.values()))
    result = score_files(find_samples(files, prompt, needs_prompt=asked), table)
    if output is not None:
        write_result(output, result)
    if len(result.rows) <= 20:
        print_rows(result)
    print_metrics(result)
    if output is not None:
        typer.echo(f"wrote {output}/report.json, summary.md, summary.csv, samples.jsonl")
    _require_scores(result)


def compare(
    before: Annotated[Path, typer.Argument(help="An evaluation: RUN/evaluations/before, ...")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same prompts and seeds.")],
    tie: Annotated[float, typer.Option(help="Differences up to this are ties.")] = 0.0,
    must_not_fall: Annotated[
        str | None, typer.Option(help="Metrics with commas: exit status 1 where one clearly fell.")
    ] = None,
) -> None:
    """Compare two evaluations sample by sample: differences with intervals, wins, p-values."""
    from mmrl.cli_tables import print_comparison
    from mmrl.evaluate.compare import compare as compare_results
    from mmrl.evaluate.result import read_result

    arms = read_result(before), read_result(after)
    found = compare_results(*arms, tie=tie)
    print_comparison(found)
    compared = {one.name for one in found}
    for name in dict.fromkeys(name for arm in arms for name in arm.names()):
        if name not in compared:
            typer.echo(f"not compared: {name} has no sample with a score in both")
    guarded = [name for name in (must_not_fall or "").split(",") if name]
    unknown = set(guarded) - {one.name for one in found}
    if unknown:
        raise UserError(f"--must-not-fall: no metric named '{sorted(unknown)[0]}' in both")
    blind = [one.name for one in found if one.name in guarded and one.units < 2]
    if blind:
        raise UserError(
            f"--must-not-fall: {blind[0]} has one prompt, which has no interval to fall from; "
            "compare more prompts"
        )
    fallen = [one.name for one in found if one.name in guarded and one.verdict == "fell"]
    if fallen:
        typer.echo(f"fell: {', '.join(fallen)}", err=True)
        raise typer.Exit(1)


def _table(rewards: str, fields: Sequence[str]) -> RewardTable:
    from mmrl.config import apply_overrides, read_yaml
    from mmrl.reward import RewardTable

    if rewards.endswith((".yaml", ".yml")):
        section = read_yaml(Path(rewards)).get("rewards")
    else:
        section = {name.strip(): {} for name in rewards.split(",") if name.strip()}
    _check_fields(fields, [*(section or ()), "faults"])
    under = [f"rewards.{field.strip()}" for field in fields]
    try:
        return RewardTable.parse(apply_overrides({"rewards": section}, under)["rewards"])
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"rewards.{error.key}".rstrip(".")) from error


def _check_fields(fields: Sequence[str], names: Sequence[str]) -> None:
    """UserError for a `--set` that is no NAME.FIELD=VALUE, or of a reward that is not there."""
    for field in fields:
        key, equals, _ = field.strip().partition("=")
        name, dot, inner = key.partition(".")
        if not (equals and dot and inner):
            raise UserError(
                f"--set {field}: expected NAME.FIELD=VALUE, such as clip_score.model=FOLDER"
            )
        if name not in names:
            raise UserError(
                f"--set {field}: no such reward in --rewards{nearest_hint(name, names)}"
            )


def _require_scores(result: Result) -> None:
    """UserError where no reward could score any sample: there is nothing to look at."""
    if not any(math.isfinite(row.score(name)) for row in result.rows for name in row.scores):
        reasons = [f"{name}: {why}" for name, why, _ in result.failures()[:1]]
        raise UserError(f"nothing was scored ({', '.join(reasons) or 'no reward has a score'})")


def _print_matrices(results: dict[str, Result]) -> None:
    from mmrl.cli_tables import plain_console, print_table
    from mmrl.evaluate.generalization import matrices

    for matrix in matrices(results):
        rows = [list(cells) for cells in matrix.cells]
        names = list(matrix.rows)
        if not matrix.missing():
            rows = [[*row, mean] for row, mean in zip(rows, matrix.row_means(), strict=True)]
            rows.append([*matrix.column_means(), matrix.overall()])
            names.append("mean")
        heads = [f"{matrix.metric} by {matrix.key}", *matrix.columns, "mean"]
        cells = ([f"{cell:.3f}" if math.isfinite(cell) else "" for cell in row] for row in rows)
        print_table(heads, ([name, *row] for name, row in zip(names, cells, strict=True)))
        plain_console().print(matrix.told())
