"""Where labkit keeps its files: the folders of the XDG base directory specification."""

from __future__ import annotations

import os
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


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else home() / default
