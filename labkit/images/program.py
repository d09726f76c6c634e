"""An image of one program: what a Dockerfile FROM scratch with COPY and ENTRYPOINT would give."""

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
    tag = normalise(tag)
    store = store or ImageStore()
    try:
        with store.building() as directory:
            rootfs = directory / "rootfs"
            for target, source in {path: program, **others}.items():
                place = rootfs / target.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
                place.chmod(0o755)
            for link in links:
                entry = rootfs / link.lstrip("/")
                entry.parent.mkdir(parents=True, exist_ok=True)
                entry.symlink_to(os.path.relpath(path, Path(link).parent))
            config = {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "env": list(env),
                "entrypoint": [path] if entrypoint is None else list(entrypoint),
                "cmd": [], "workdir": "/", "user": user,
                "exposed_ports": [], "labels": {}, "path_prepend": [], "layers": [], "python": "",
                "notes": [], "size_bytes": tree_bytes(rootfs),
            }  # fmt: skip
            return store.add(tag, config, rootfs)
    except OSError as err:
        raise ImageError(
            f"The image cannot be written: {err}.", "Check the free space and permissions."
        ) from err
