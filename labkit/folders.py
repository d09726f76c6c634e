"""Where labkit keeps its files, by the XDG base directory specification, and how it writes them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labkit.errors import MachineError

_USUAL = {"XDG_CACHE_HOME": ".cache", "XDG_STATE_HOME": ".local/state", "XDG_DATA_HOME": ".local/share"}


def home() -> Path:
    """The user's home.

    Raises:
        MachineError: HOME is not set, and the machine knows no home of this user's number.
    """
    try:
        return Path.home()
    except RuntimeError as err:
        raise MachineError(
            f"User {os.getuid()} has no home here: HOME is not set, and the machine does not know the user.",
            "Set HOME to a folder that this user may write, such as: export HOME=$(mktemp -d)",
        ) from err


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/labkit, by default in ~/.cache. Everything in it can be deleted at any time."""
    return base("XDG_CACHE_HOME") / "labkit"


def state_dir() -> Path:
    """$XDG_STATE_HOME/labkit, by default in ~/.local/state."""
    return base("XDG_STATE_HOME") / "labkit"


def data_dir() -> Path:
    """$XDG_DATA_HOME/labkit, by default in ~/.local/share."""
    return base("XDG_DATA_HOME") / "labkit"


def private(folder: Path) -> Path:
    """Make a folder of labkit's that no other user can change or replace, whatever the umask is.

    Raises:
        MachineError: it, or one that it lies in, is another user's or open to all.
    """
    chain = [*reversed(folder.absolute().parents), folder.absolute()]
    for each in chain:
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)
    own = next((n for n, each in enumerate(chain) if each.name == "labkit"), len(chain) - 1)
    for each in chain[:own]:
        mode = each.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise MachineError(
                f"Every user of this machine may replace what is in {each}, and {folder} is to be in there.",
                f"chmod o-w {each}, or let the XDG variables name folders of yours.",
            )
    for each in chain[own:]:
        found = each.stat()
        if found.st_uid != os.geteuid():
            raise MachineError(
                f"{each} belongs to user {found.st_uid}, not to you.",
                "Let XDG_CACHE_HOME, XDG_STATE_HOME and XDG_DATA_HOME name folders of yours.",
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            each.chmod(stat.S_IMODE(found.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
    return folder


def write(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    """Write a file, by default a private one: it is there whole, or as it was before; see `replacing`."""
    with replacing(path, mode) as stream:
        stream.write(text.encode() if isinstance(text, str) else text)


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A stream that becomes the file when the block ends. If it fails, the file is as it was before.

    Args:
        mode: the file's. Folders that are made are open to whoever may read the file.
    """
    path.parent.mkdir(mode=mode | (mode & 0o444) >> 2, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def base(variable: str, given: Mapping[str, str] = os.environ) -> Path:
    """A base directory of the XDG specification, which says that a relative path is to be ignored.

    platformdirs does not ignore it.
    """
    path = given.get(variable, "")
    return Path(path) if path.startswith("/") else home() / _USUAL[variable]
