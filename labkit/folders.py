"""Where labkit keeps its files: the folders of the XDG base directory specification."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labkit.errors import MachineError


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
    return _base("XDG_CACHE_HOME", ".cache") / "labkit"


def state_dir() -> Path:
    """$XDG_STATE_HOME/labkit, by default in ~/.local/state."""
    return _base("XDG_STATE_HOME", ".local/state") / "labkit"


def data_dir() -> Path:
    """$XDG_DATA_HOME/labkit, by default in ~/.local/share."""
    return _base("XDG_DATA_HOME", ".local/share") / "labkit"


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


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else home() / default
