"""Runs side by side on one machine: labs that measure take turns with all others."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(file: Path | None, alone: bool, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock for the length of a lab: a shared one, or the only one.

    Whoever comes later waits behind one that wants to be alone, so that it gets its turn.

    Args:
        file: what the runs that know of each other share; None for a run that knows of no other.
        waiting: called once if it cannot begin at once.
    """
    if file is None:
        yield
        return
    with file.open("w") as lock, file.with_name(f"{file.name}.next").open("w") as following:
        waited = _lock(following, fcntl.LOCK_EX, waiting)
        _lock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, (lambda: None) if waited else waiting)
        fcntl.flock(following, fcntl.LOCK_UN)
        yield


def _lock(stream: object, kind: int, waiting: Callable[[], None]) -> bool:
    """Take the lock; True when it had to be waited for."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)  # type: ignore[arg-type]
        return False
    except BlockingIOError:
        waiting()
        fcntl.flock(stream, kind)  # type: ignore[arg-type]
        return True
