"""The verbs that measure: eval, score, compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrl.config import ConfigError, UserError

if TYPE_CHECKING:
    from mmrl.evaluate.compare import Comparison
    from mmrl.evaluate.result import Metric, Result
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
    from mmrl.evaluate.checkpoint import evaluate_run
    from mmrl.report.run import find_runs

    runs = [target] if (target / "config.yaml").is_file() else find_runs(target)
    results = {run.name: evaluate_run(run, overrides or []) for run in runs}
    for name, result in results.items():
        typer.echo(f"{name}, {result.subject['weights']}")
        _print_metrics(result.metrics())
    if len(results) > 1:
        _print_matrices(results)


def score(
    files: Annotated[list[Path], typer.Argument(help="Videos, pictures, JSONL files, folders.")],
    rewards: Rewards = None,
    fields: Fields = None,
    prompt: Text = None,
    output: Output = None,
) -> None:
    """Score finished samples with rewards by name; no model is run but the rewards' own."""
    from mmrl.evaluate.files import find_samples, score_files
    from mmrl.evaluate.result import write_result

    if rewards is None:
        raise UserError("score needs --rewards NAME,NAME; `mmrl list` names them")
    table = _table(rewards, fields or [])
    result = score_files(find_samples(files, prompt), table)
    if len(result.rows) <= 20:
        _print_rows(result)
    _print_metrics(result.metrics())
    if output is not None:
        write_result(output, result)
        typer.echo(f"wrote {output}/report.json, summary.md, summary.csv, samples.jsonl")


def compare(
    before: Annotated[Path, typer.Argument(help="An evaluation: RUN/evaluations/before, ...")],
    after: Annotated[Path, typer.Argument(help="Another one, of the same prompts and seeds.")],
    tie: Annotated[float, typer.Option(help="Differences up to this are ties.")] = 0.0,
    must_not_fall: Annotated[
        str | None, typer.Option(help="Metrics with commas: exit status 1 where one clearly fell.")
    ] = None,
) -> None:
    """Compare two evaluations sample by sample: differences with intervals, wins, p-values."""
    from mmrl.evaluate.compare import compare as compare_results
    from mmrl.evaluate.result import read_result

    found = compare_results(read_result(before), read_result(after), tie=tie)
    _print_comparison(found)
    guarded = [name for name in (must_not_fall or "").split(",") if name]
    unknown = set(guarded) - {one.name for one in found}
    if unknown:
        raise UserError(f"--must-not-fall: no metric named '{sorted(unknown)[0]}' in both")
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
        section = {name: {} for name in rewards.split(",") if name}
    try:
        return RewardTable.parse(apply_overrides({"rewards": section}, _under(fields))["rewards"])
    except ConfigError as error:
        raise ConfigError(error.reason, key=f"rewards.{error.key}") from error


def _under(fields: Sequence[str]) -> list[str]:
    return [f"rewards.{field}" for field in fields]


def _print_metrics(metrics: Sequence[Metric]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "slice", "mean", "95 % interval", "n", "missing", box=None)
    for m in metrics:
        interval = "" if m.low != m.low else f"[{m.low:.4f}, {m.high:.4f}]"
        table.add_row(m.name, m.slice, f"{m.mean:.4f}", interval, str(m.n), str(m.missing or ""))
    Console().print(table)


def _print_rows(result: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    names = result.names()
    table = Table("sample", *names, box=None)
    for row in result.rows:
        scores = (row.scores.get(name) for name in names)
        cells = ["" if value is None else f"{value:.4f}" for value in scores]
        table.add_row(Path(row.media).name if row.media else (row.text or "")[:40], *cells)
    Console().print(table)


def _print_comparison(found: Sequence[Comparison]) -> None:
    from rich.console import Console
    from rich.table import Table

    heads = ("metric", "first", "second", "difference", "wins/ties/losses", "win rate", "p (Holm)")
    table = Table(*heads, "", box=None)
    for one in found:
        low, high = one.wins.interval()
        table.add_row(
            one.name,
            f"{one.before:.4f}",
            f"{one.after:.4f}",
            f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]",
            f"{one.wins.wins}/{one.wins.ties}/{one.wins.losses}",
            f"{one.wins.rate:.1%} [{low:.1%}, {high:.1%}]",
            f"{one.p_value:.4f}",
            one.verdict,
        )
    Console().print(table)


def _print_matrices(results: dict[str, Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmrl.evaluate.generalization import matrices

    for matrix in matrices(results):
        table = Table(f"{matrix.metric} by {matrix.key}", *matrix.columns, "mean", box=None)
        rows = [list(cells) for cells in matrix.cells]
        names = list(matrix.rows)
        if not matrix.missing():
            rows = [[*row, mean] for row, mean in zip(rows, matrix.row_means(), strict=True)]
            rows.append([*matrix.column_means(), matrix.overall()])
            names.append("mean")
        for name, row in zip(names, rows, strict=True):
            table.add_row(name, *(f"{cell:.3f}" if math.isfinite(cell) else "" for cell in row))
        Console().print(table)
        Console().print(matrix.told())
