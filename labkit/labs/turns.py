"""Runs side by side on one machine: labs that measure take turns with all others."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class Turn:
    """A place among the runs that share a file; one without a file has nobody to wait for."""

    def __init__(
        self, lock: IO[str] | None = None, following: IO[str] | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._lock, self._following, self._waiting = lock, following, waiting

    def take(self, alone: bool) -> float:
        """Go on beside the others, or alone; seconds that this had to wait.

        Whoever comes later waits behind one that wants to be alone, so that it gets its turn.
        """
        if self._lock is None or self._following is None:
            return 0.0
        begin = time.monotonic()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        waited = _lock(self._following, fcntl.LOCK_EX, self._waiting)
        _lock(
            self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, (lambda: None) if waited else self._waiting
        )
        fcntl.flock(self._following, fcntl.LOCK_UN)
        return time.monotonic() - begin


@contextmanager
def turn(file: Path | None, alone: bool, waiting: Callable[[], None] = lambda: None) -> Iterator[Turn]:
    """Hold a turn for the length of a lab, which may change it on the way.

    Args:
        file: what the runs that know of each other share; None for a run that knows of no other.
        alone: with no other run beside it.
        waiting: called whenever it cannot go on at once.
    """
    if file is None:
        yield Turn()
        return
    with file.open("w") as lock, file.with_name(f"{file.name}.next").open("w") as following:
        mine = Turn(lock, following, waiting)
        mine.take(alone)
        yield mine


def _lock(stream: IO[str], kind: int, waiting: Callable[[], None]) -> bool:
    """Take the lock; True when it had to be waited for."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        waiting()
        fcntl.flock(stream, kind)
        return True
