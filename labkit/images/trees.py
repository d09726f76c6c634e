"""Digests of directory trees, locks, temporary directories: what makes the store safe to kill any time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import ImageError

_SKIPPED = "__pycache__"  # Python writes it at run time, where it likes


def walk(root: Path) -> Iterator[Path]:
    """Every file, link and directory below `root`, in a fixed order; links are not followed."""
    for entry in sorted(os.scandir(root), key=lambda item: item.name):
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from walk(path)


def tree_digest(root: Path) -> str:
    """`sha256:…` over names, kinds, permissions and contents below `root`, byte-code caches left out."""
    total = hashlib.sha256()
    for path in walk(root):
        relative = path.relative_to(root)
        if _SKIPPED in relative.parts:
            continue
        if path.is_symlink():
            kind, content = "l", path.readlink().as_posix()
        elif path.is_dir():
            kind, content = "d", ""
        else:
            kind, content = "f", file_digest(path)
        mode = f"{path.stat().st_mode & 0o777:o}" if kind == "f" else ""
        total.update(f"{kind} {mode} {relative.as_posix()}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_bytes(root: Path) -> int:
    """Bytes of all regular files below `root`."""
    return sum(path.lstat().st_size for path in walk(root) if path.is_file() and not path.is_symlink())


@contextmanager
def locked(path: Path, wait_s: float, what: str, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the file `path`, which is made; exclusive, or `shared` with others that are.

    Raises:
        ImageError: another process held it for longer than `wait_s` seconds.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as stream:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ImageError(
                        f"Another process has been busy with {what} for {wait_s:.0f} s.",
                        "Wait for it, or stop it, and try again.",
                    ) from None
                time.sleep(0.05)
        yield


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A fresh directory in `parent`, removed at the end; those of killed processes are removed first."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(parent)
    path = Path(tempfile.mkdtemp(dir=parent))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove directories whose owner no longer holds its lock on them."""
    for path in parent.iterdir():
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - path.stat().st_mtime > 5:  # a second ago it may not have been locked yet
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)
