"""An image of a few files: what a Dockerfile FROM scratch with COPY, ENTRYPOINT and CMD would give."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from labkit.errors import ImageError
from labkit.images.names import normalise
from labkit.images.store import Image, ImageStore
from labkit.images.trees import tree_bytes


def from_program(
    tag: str,
    program: Path,
    path: str,
    *,
    entrypoint: Sequence[str] | None = None,
    links: Sequence[str] = (),
    env: Sequence[str] = (),
    user: str = "",
    others: Mapping[str, Path] = MappingProxyType({}),
    store: ImageStore | None = None,
) -> Image:
    """Let `tag` point to an image that has a program at `path`, as its entrypoint.

    Args:
        program: the file, which runs without any other file.
        path: absolute path in the image.
        entrypoint: of the image; None for `path`.
        links: other absolute paths that lead to it.
        env: NAME=value of the image.
        user: number of the user that it runs as, "" for root.
        others: absolute path in the image → another file that it has, all of them programs.

    Raises:
        ImageError: it cannot be written.
    """
    return from_files(
        tag,
        {path: program, **others},
        entrypoint=[path] if entrypoint is None else entrypoint,
        links={link: os.path.relpath(path, Path(link).parent) for link in links},
        env=env,
        user=user,
        store=store,
    )


def from_files(
    tag: str,
    files: Mapping[str, Path | bytes],
    *,
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    env: Sequence[str] = (),
    user: str = "",
    store: ImageStore | None = None,
) -> Image:
    """Let `tag` point to an image of the given files.

    Args:
        files: absolute path in the image → a program, or the content of a plain file.
        entrypoint, cmd: as in a Dockerfile.
        links: absolute path of a link → where it leads.
        env: NAME=value of the image.
        user: as in a Dockerfile.

    Raises:
        ImageError: it cannot be written.
    """
    tag = normalise(tag)
    store = store or ImageStore()
    try:
        with store.building() as directory:
            rootfs = directory / "rootfs"
            rootfs.mkdir()
            for path, content in files.items():
                _write(rootfs / path.lstrip("/"), content)
            for path, target in (links or {}).items():
                entry = rootfs / path.lstrip("/")
                entry.parent.mkdir(parents=True, exist_ok=True)
                entry.symlink_to(target)
            config = {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "env": list(env), "entrypoint": list(entrypoint), "cmd": list(cmd), "workdir": "/",
                "user": user, "exposed_ports": [], "labels": {}, "path_prepend": [], "layers": [],
                "python": "", "notes": [], "size_bytes": tree_bytes(rootfs),
            }  # fmt: skip
            return store.add(tag, config, rootfs)
    except OSError as err:
        raise ImageError(
            f"The image cannot be written: {err}.", "Check the free space and permissions."
        ) from err


def _write(place: Path, content: Path | bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, place)
        place.chmod(0o755)
    else:
        place.write_bytes(content)
        place.chmod(0o644)
