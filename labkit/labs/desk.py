"""The desk of a run: a folder in which cells write what a learner would, beside links to the rest.

Two runs at once, each with its own desk, do not write into each other's files, nor into the checkout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from labkit.course.numbers import lab_of, lab_paths
from labkit.errors import ConfigError

_MARK = ".labkit-desk"


def check_desk(folder: Path) -> None:
    """Say that a folder is no desk, before it would be cleared.

    Raises:
        ConfigError: something of somebody else is there.
    """
    if folder.exists() and not (folder / _MARK).is_file():
        raise ConfigError(
            f"{folder} is there, and no run of labs made it.",
            "Move it away, or name another folder with --report.",
        )


def new_desk(folder: Path, notebooks: Path) -> Path:
    """Make a desk, in place of the one of an earlier run; the folder that stands for that of the notebooks.

    Args:
        notebooks: folder of the labs; what lies beside it is linked.

    Raises:
        ConfigError: something of somebody else is there.
        OSError: it cannot be written.
    """
    check_desk(folder)
    if folder.exists():
        shutil.rmtree(folder)
    own = folder / notebooks.name
    (own / "work").mkdir(parents=True)
    (folder / _MARK).touch()
    for beside in notebooks.parent.iterdir():
        if not beside.name.startswith(".") and beside != notebooks and not folder.is_relative_to(beside):
            (folder / beside.name).symlink_to(beside)
    for path in lab_paths(notebooks):
        (own / "work" / lab_of(path.name)).mkdir(exist_ok=True)
    return own
