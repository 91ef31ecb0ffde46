"""`mmrl VERB ...`: every verb imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mmrl import cli_data, cli_evaluate
from mmrl.config import UserError

if TYPE_CHECKING:
    from mmrl.doctor import Estimate

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cli_data.app, name="data")
app.command("eval")(cli_evaluate.evaluate)
app.command()(cli_evaluate.score)
app.command()(cli_evaluate.compare)


def _print_version(asked: bool) -> bool:
    from importlib.metadata import version

    if asked:
        typer.echo(f"mmrl {version('mmrl')}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, end."),
    ] = False,
) -> None:
    """Train vision-language and video diffusion models with reinforcement learning."""


ConfigFile = Annotated[Path, typer.Argument(help="A YAML file; configs/ holds one per pipeline.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as train.steps=5")]
RunFolder = Annotated[Path, typer.Argument(help="The output folder of a run.")]


@app.command()
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the pipeline that CONFIG names, in a new output folder."""
    from mmrl.train.loop import load_config, start

    _report_stop(start(load_config(_tree(config, overrides))))


@app.command()
def resume(
    run: RunFolder,
    overrides: Annotated[list[str] | None, typer.Argument(help="train.steps=MORE, or none")] = None,
) -> None:
    """Continue a run from its last good checkpoint, bit for bit; train.steps=MORE extends it."""
    from mmrl.train.loop import resume as continue_run

    _report_stop(continue_run(run, overrides or []))


@app.command()
def report(run: RunFolder) -> None:
    """Write report.html for one run, or for a folder of runs: one page that needs no network."""
    from mmrl.report.page import write_report

    page = run / "report.html"
    write_report(run, page)
    typer.echo(f"wrote {page}")


@app.command()
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    memory: Annotated[bool, typer.Option("--memory", help="Estimate peak memory instead.")] = False,
) -> None:
    """Print the resolved config: defaults, then the file, then the overrides."""
    from mmrl.config import dump
    from mmrl.train.loop import load_config

    resolved = load_config(_tree(config, overrides))
    if memory:
        from mmrl.doctor import estimate

        _print_memory(estimate(resolved))
    else:
        typer.echo(dump(resolved), nl=False)


@app.command()
def keys(
    name: Annotated[str, typer.Argument(help="A pipeline or a reward; `mmrl list` names all.")],
) -> None:
    """Print every key of a pipeline's or a reward's config: type, default, what it means."""
    from mmrl.config_keys import lines_of
    from mmrl.recipe import pipelines
    from mmrl.registry import nearest_hint
    from mmrl.reward import FaultPolicy, reward_class, rewards

    known = {*pipelines.names(), *rewards.names()}
    if name not in known:
        raise UserError(f"no pipeline or reward named '{name}'{nearest_hint(name, known)}")
    if name in pipelines.names():
        lines = lines_of(pipelines.get(name))
    else:
        faults = [f"  {line}" for line in lines_of(FaultPolicy)]
        weight = ["weight: float = 1.0", "    # 0: watched, never trained."]
        lines = [*lines_of(reward_class(name)), *weight, "faults: section = as below", *faults]
    typer.echo("\n".join(lines))


@app.command("list")
def list_names() -> None:
    """Pipelines and rewards by name, with a line each, and the data sets that can be fetched."""
    from mmrl.cli_tables import print_table
    from mmrl.data.packaged import DATASETS
    from mmrl.registry import catalogue

    for noun, group in (("pipeline", "mmrl.pipelines"), ("reward", "mmrl.rewards")):
        print_table((noun, "what it is"), ((one.name, one.summary) for one in catalogue(group)))
        typer.echo()
    named = ((name, source.summary) for name, source in sorted(DATASETS.items()))
    print_table(("mmrl data fetch", "what it is"), named)


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A YAML file: scorers by name, host, port.")],
    overrides: Overrides = None,
) -> None:
    """Serve rewards over HTTP; `remote` is the reward that asks there."""
    from mmrl.serve.run import load_serve_config
    from mmrl.serve.run import serve as serve_scorers

    serve_scorers(load_serve_config(config, overrides or []), typer.echo)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of the demo's runs.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of both trainings.")] = 0,
) -> None:
    """Train a video model and a VLM on tiny data, and write a page that shows both."""
    from mmrl.demo import run_demo

    typer.echo(f"open {run_demo(output, seed)}")


def _tree(config: Path, overrides: list[str] | None) -> dict:
    from mmrl.config import apply_overrides, read_yaml

    return apply_overrides(read_yaml(config), overrides or [])


def _report_stop(outcome) -> None:
    from mmrl.cli_tables import print_changes
    from mmrl.train.stop import EXIT_STOPPED

    if outcome.stopped:
        typer.echo(
            f"stopped by a signal after step {outcome.step}; `mmrl resume {outcome.run}` continues"
        )
        raise typer.Exit(EXIT_STOPPED)
    if os.environ.get("RANK", "0") == "0":
        print_changes(outcome.run)
    typer.echo(f"finished step {outcome.step}; `mmrl report {outcome.run}` draws it")


def _print_memory(found: Estimate) -> None:
    """Counts of parameters, then MiB by item and phase; 0 is left blank."""
    from mmrl.cli_tables import print_table
    from mmrl.doctor.items import PLACES

    def cells(values: Iterable[int]) -> list[str]:
        return [f"{value / 2**20:,.1f}" if value else "" for value in values]

    for name, number in found.parameters.items():
        typer.echo(f"{number:>15,} parameters: {name}")
    rows = [
        (item.name, *cells(item.bytes.get(place, 0) for place in PLACES)) for item in found.items
    ]
    total = ("total", *cells(found.total(place) for place in PLACES))
    print_table(("MiB", *PLACES), [*rows, total], numbers=True)
    if found.assumed:
        typer.echo(f"assumed: {found.assumed}")


def main() -> None:
    """Run the CLI; a user's mistake, or a file that cannot be read or written, is one line.

    It goes to stderr, and the exit status is 2.
    """
    try:
        app()
    except UserError as error:
        _end(f"{_kind(error)}: {error}")
    except OSError as error:
        _end(f"error: {_told(error)}")


def _end(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(2)


def _told(error: OSError) -> str:
    """Path and cause, or the first line of what a library wrote in their place."""
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error).split("\n")[0] or type(error).__name__


def _kind(error: UserError) -> str:
    from mmrl.config import ConfigError

    return "config error" if isinstance(error, ConfigError) else "error"
