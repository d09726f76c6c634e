"""Build an image from a directory with a Dockerfile, without a container engine."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from labkit.errors import ImageError
from labkit.images.context import copy
from labkit.images.dockerfile import Copy, PipInstall, Recipe, read_dockerfile
from labkit.images.layers import Layer
from labkit.images.names import normalise
from labkit.images.store import Image, ImageStore
from labkit.images.trees import tree_bytes


def build(
    path: str | Path,
    tag: str,
    *,
    dockerfile: str | Path | None = None,
    build_args: Mapping[str, str] | None = None,
    store: ImageStore | None = None,
    progress: Callable[[str], None] | None = None,
) -> Image:
    """Build the directory `path` and let `tag` point to the result.

    The Dockerfile is the one Docker builds; the subset is FROM python:*, ARG, ENV, LABEL, WORKDIR, COPY,
    RUN pip install, EXPOSE, USER, ENTRYPOINT and CMD. The Python is the one that runs labkit, whatever
    version FROM names; the difference is a note of the image.

    Args:
        path: the build context.
        tag: NAME or NAME:TAG.
        dockerfile: another file than PATH/Dockerfile.
        build_args: values for ARG.
        progress: called with one line per step.

    Raises:
        ImageError: with file and line of what cannot be done, and what to do instead.
    """
    root = Path(path)
    if not root.is_dir():
        raise ImageError(f"{root} is not a directory.", "Name the directory that has the Dockerfile.")
    tag = normalise(tag)
    store = store or ImageStore()
    say = progress or (lambda _line: None)
    file = Path(dockerfile) if dockerfile else root / "Dockerfile"
    recipe = read_dockerfile(file, build_args, root, say)
    try:
        with store.building() as directory:
            rootfs = directory / "rootfs"
            layer = _files(recipe, root, rootfs, store, say)
            _note_python(recipe)
            image = store.add(tag, _config(recipe, layer, rootfs, store), rootfs)
    except OSError as err:
        raise ImageError(
            f"The image cannot be written: {err}.", "Check the free space and permissions."
        ) from err
    for note in image.notes:
        say(f"note: {note}")
    say(f"built {tag}: {image.short_digest}, {image.size_bytes / 1e6:.1f} MB")
    return image


def _files(
    recipe: Recipe, context: Path, rootfs: Path, store: ImageStore, say: Callable[[str], None]
) -> Layer:
    """Carry out COPY and RUN in their order; pip sees the files that were copied before it."""
    rootfs.mkdir(mode=0o755)
    for workdir in recipe.workdirs:
        (rootfs / workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    installs: list[PipInstall] = []
    layer: Layer | None = None
    for step, following in zip_longest(recipe.steps, recipe.steps[1:]):
        if isinstance(step, Copy):
            say(f"COPY {' '.join(step.sources)} → {step.dest}")
            copy(recipe, step, context, rootfs)
        else:
            installs.append(step)
            if not isinstance(following, PipInstall):
                layer = store.layers.ensure(recipe, installs, rootfs, say)
    return layer or store.layers.ensure(recipe, [], rootfs, say)


def _config(recipe: Recipe, layer: Layer, rootfs: Path, store: ImageStore) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "env": [f"{name}={value}" for name, value in recipe.env.items()],
        "entrypoint": recipe.entrypoint,
        "cmd": recipe.cmd,
        "workdir": recipe.workdir,
        "user": recipe.user,
        "exposed_ports": sorted(set(recipe.exposed_ports)),
        "labels": recipe.labels,
        "path_prepend": [str(layer.bin)],
        "layers": [layer.key],
        "python": platform.python_version(),
        "notes": list(dict.fromkeys(recipe.notes)),
        "size_bytes": tree_bytes(rootfs) + store.layers.size_bytes(layer.key),
    }


def _note_python(recipe: Recipe) -> None:
    """Say so where FROM asks for another Python than this one."""
    version = recipe.python.partition("-")[0]
    here = platform.python_version()
    if version[:1].isdigit() and here.split(".")[: version.count(".") + 1] != version.split("."):
        recipe.notes.append(f"FROM python:{recipe.python}: runs with Python {here}, the one of this machine")
