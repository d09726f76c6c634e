"""A lock of one process at a time, which ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from labkit.errors import LabkitError


@contextmanager
def alone(
    path: Path, limit_s: float, busy: Callable[[], LabkitError], waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock on a file, which is made.

    Args:
        limit_s: how long to wait for whoever holds it.
        busy: the error to raise when that was not enough.
        waiting: called once, if it has to wait.

    Raises:
        LabkitError: the one that `busy` gives.
    """
    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        try:
            lock.acquire(timeout=limit_s, poll_interval=0.2)
        except Timeout:
            raise busy() from None
    try:
        yield
    finally:
        lock.release()
