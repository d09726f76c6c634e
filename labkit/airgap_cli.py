"""`labkit airgap …`: images for kind where no container registry can be reached."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from labkit import airgap
from labkit.phases import shown

app = typer.Typer(
    help="Images for kind without a container registry: built from package registries, or from a file.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
File = Annotated[Path, typer.Argument(help="The file.")]


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Short or upstream's names.  [all that a cluster is made of]")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that are there, with the packages of today.")
    ] = False,
) -> None:
    """Build images from Debian packages and Go modules; what is there already is kept."""
    with shown() as listener:
        tags = airgap.build(names or [], listener, again=again)
    for tag in tags.values():
        typer.echo(tag)


@app.command()
def save(file: File) -> None:
    """Write all images into one file, for machines that shall not build them."""
    with shown() as listener:
        packed = airgap.save(file, listener)
    typer.echo(f"{file}: {_words(packed)}")


@app.command()
def load(file: File) -> None:
    """Take images out of such a file. A damaged file is refused, and changes nothing."""
    with shown() as listener:
        packed = airgap.load(file, listener)
    typer.echo(f"Loaded: {_words(packed)}")


@app.command("list")
def list_(
    file: Annotated[
        Path | None, typer.Argument(help="A file of `save`: what is in it.  [what Docker has]")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the images, or what is in a file."""
    if file:
        packed = airgap.contents(file)
        if as_json:
            typer.echo(json.dumps(asdict(packed)))
            return
        typer.echo(_words(packed))
        for short, tag in packed.images.items():
            typer.echo(f"  {short:32} {tag}")
        return
    rows = airgap.rows()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows]))
        return
    typer.echo(f"{'IMAGE':26} {'STATE':9} {'SIZE':>8}  WHAT")
    for row in rows:
        size = f"{row.size_bytes / 1e6:.0f} MB" if row.size_bytes else ""
        typer.echo(f"{('· ' if row.part else '') + row.short:26} {row.state:9} {size:>8}  {row.about}")
        for name in row.names:
            typer.echo(f"{'':46} {name}")


def _words(packed: airgap.Packed) -> str:
    return (
        f"{len(packed.images)} images for Kubernetes {packed.kubernetes} on {packed.platform}, "
        f"made {packed.created[:16].replace('T', ' ')} UTC, {packed.size_bytes / 1e9:.2f} GB unpacked"
    )
