"""Upstream's images as bundles of the embedded cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

from labkit.acquire import module_file, programs
from labkit.acquire.build import Progress
from labkit.cluster.base import upstream_image


def make_bundle(name: str, progress: Progress) -> None:
    """Let pods find an image of versions.toml in the store.

    Raises:
        ConfigError: there is no such image.
        AcquireError, MachineError, ImageError: it cannot be made.
    """
    from labkit.images import ImageStore, from_program

    made = upstream_image(name)
    installed = shutil.which(made.installed) if made.installed else None
    wanted = [*([] if installed else [made.program]), *made.others.values()]
    found = programs(wanted, progress)
    program = Path(installed).resolve() if installed else found[made.program]
    others = {path: found[other] for path, other in made.others.items()}
    others |= {path: module_file(source) for path, source in made.files.items()}
    from_program(
        name, program, made.path, entrypoint=made.entrypoint, links=made.links, env=made.env, user=made.user,
        others=others, store=ImageStore(),
    )  # fmt: skip
