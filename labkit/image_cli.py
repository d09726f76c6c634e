"""`labkit image …`: build, list, tag, remove and inspect images of the embedded cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import images
from labkit.cluster.providers import open_cluster
from labkit.errors import ConfigError

app = typer.Typer(
    help="Images of the embedded cluster, built from Dockerfiles without Docker.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Name = Annotated[str, typer.Argument(help="NAME:TAG, or the first digits of a digest.")]


@app.command()
def build(
    path: Annotated[Path, typer.Argument(help="Directory with the Dockerfile and what it copies.")],
    tag: Annotated[str, typer.Option("--tag", "-t", help="NAME:TAG of the image.")],
    dockerfile: Annotated[
        Path | None, typer.Option("--file", "-f", help="Another file than PATH/Dockerfile.")
    ] = None,
    build_arg: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for an ARG; may be repeated.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Build it for the pods of this cluster, whatever its provider.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an image from a Dockerfile."""
    pairs = [argument.partition("=") for argument in build_arg or []]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError("--build-arg needs NAME=VALUE.")
    args = {name: value for name, _, value in pairs}
    if cluster:
        if dockerfile:
            raise ConfigError("--file goes with images of the store only.", "Leave out --cluster or --file.")
        image = open_cluster(cluster).build_image(path, tag, args)
        typer.echo(_json(image) if as_json else f"built {tag}: {image.short_digest}")
        return
    image = images.build(
        path, tag, dockerfile=dockerfile, build_args=args, progress=lambda line: typer.echo(line, err=as_json)
    )
    if as_json:
        typer.echo(_json(image))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List images, their digests and sizes."""
    found = images.ImageStore().images()
    if as_json:
        typer.echo(json.dumps([_plain(image) for image in found], indent=1))
        return
    width = max(len(name) for image in found for name in (*image.tags, "IMAGE"))
    typer.echo(f"{'IMAGE':{width}}  {'DIGEST':12}  {'CREATED':16}  SIZE")
    for image in found:
        created = f"{image.created.astimezone():%Y-%m-%d %H:%M}" if image.created else ""
        size = (
            "built in"
            if image.built_in
            else "damaged"
            if not image.created
            else f"{image.size_bytes / 1e6:.1f} MB"
        )
        for name in image.tags or ("<none>",):
            typer.echo(f"{name:{width}}  {image.short_digest:12}  {created:16}  {size}")


@app.command()
def tag(source: Name, target: Annotated[str, typer.Argument(help="The new NAME:TAG.")]) -> None:
    """Give an image another name."""
    image = images.ImageStore().tag(source, target)
    typer.echo(f"{images.normalise(target)} → {image.short_digest}")


@app.command()
def rm(
    names: Annotated[list[str] | None, typer.Argument(help="NAME:TAG or digests to remove.")] = None,
    untagged: Annotated[bool, typer.Option(help="Remove all images without a name.")] = False,
) -> None:
    """Remove images, with the files that no other image needs."""
    store = images.ImageStore()
    if not names and not untagged:
        raise ConfigError("Nothing to remove.", "Name images, or use --untagged.")
    for name in names or []:
        typer.echo(f"removed {name} ({store.remove(name).short_digest})")
    if untagged:
        store.collect(untagged=True)


@app.command()
def inspect(name: Name) -> None:
    """Verify an image's files and print its configuration as JSON."""
    store = images.ImageStore()
    image = store.get(name)
    store.verify(image)
    typer.echo(_json(image))


def _plain(image: images.Image) -> dict[str, Any]:
    fields = asdict(image)
    fields["labels"] = dict(image.labels)
    fields["created"] = image.created.isoformat() if image.created else None
    fields["rootfs"] = str(image.rootfs) if image.rootfs else None
    return fields


def _json(image: images.Image) -> str:
    return json.dumps(_plain(image), indent=1)
