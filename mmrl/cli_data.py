"""The verbs of data: fetch, list, convert, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Fetch, convert and check data.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set; `mmrl data list` names all.")],
) -> None:
    """Download a pinned package, check its hash and unpack its data to the cache."""
    from mmrl.data.fetch import fetch as fetch_dataset

    typer.echo(f"{name} lies in {fetch_dataset(name)}")


@app.command("list")
def list_data() -> None:
    """The data sets that can be fetched, with size, source and licence."""
    from mmrl.data.packaged import DATASETS

    for name, source in sorted(DATASETS.items()):
        typer.echo(f"{name:14s} {source.summary}")
        typer.echo(
            f"{'':14s} {source.package}=={source.version}, {source.megabytes} MB; {source.license}"
        )


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of data.")],
    output: Annotated[Path, typer.Argument(help="The new folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="auto, jsonl, parquet, hf, llava, r1v, easyr1, vqa or imagefolder"
        ),
    ] = "auto",
    images: Annotated[
        Path | None, typer.Option(help="Folder that picture paths are relative to.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="What an image folder's prompts ask.")
    ] = None,
) -> None:
    """Write data of another format as prompt files with their pictures."""
    from mmrl.data.convert import convert as convert_data

    found = convert_data(source, output, form=form, images=images, question=question)
    typer.echo(f"read as {found.schema}; {found.pictures} pictures in {output / 'images'}")
    for name, count in found.prompts.items():
        typer.echo(f"{count:>9,} prompts in {output / name}")
    for name, count in sorted(found.left_out.items()):
        typer.echo(f"left out: column '{name}' of {count} prompts, a list or an object")
