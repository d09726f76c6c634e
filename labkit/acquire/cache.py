"""The cache of binaries: complete and verified, or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.acquire.build import Progress, build, span
from labkit.acquire.download import Unpublished, archive_name, fetch, release_url
from labkit.acquire.sources import PROGRAMS, source_key, sources, target
from labkit.errors import AcquireError, MachineError
from labkit.folders import private
from labkit.locks import alone
from labkit.tools import cache_dir, find_go, go
from labkit.versions import versions

MANIFEST = "manifest.json"
KEPT = 3
"""Binaries of so many source versions stay in the cache; older ones are removed after a build."""


@dataclass(frozen=True)
class Binaries:
    """The two programs.

    Attributes:
        directory: where they are.
        key: digest of what they were made of.
        origin: how they came here, for people.
    """

    directory: Path
    key: str
    origin: str

    @property
    def kube(self) -> Path:
        """The multi-call binary of all components."""
        return self.directory / "kube"

    @property
    def shim(self) -> Path:
        """Pods' shim, supervisor and probe."""
        return self.directory / "shim"


def _silent(_text: str, _fraction: float | None) -> None:
    """No progress."""


def cached(key: str | None = None) -> Binaries | None:
    """The binaries, if the cache has them whole; None otherwise."""
    key = key or source_key()
    directory = _root() / key
    return None if _damage(directory) else Binaries(directory, key, str(_manifest(directory)["origin"]))


def binaries(progress: Progress = _silent, note: Callable[[str], None] = lambda _: None) -> Binaries:
    """The binaries of this version of labkit: from the cache, else a release, else compiled.

    Two processes that need them build once. Interrupted at any moment, it leaves nothing that looks complete.

    Args:
        progress: told how far it is.
        note: told single facts that a person should know ("the cache was damaged: …").

    Raises:
        AcquireError, MachineError: they cannot be had; what to do is in the hint.
    """
    key = source_key()
    found = cached(key)
    if found:
        return found
    try:
        with _locked(progress):
            found = cached(key)
            return found or _make(key, progress, note)
    except OSError as err:
        raise _machine_error(err) from err


def pack(found: Binaries, folder: Path) -> Path:
    """Write the archive and its checksum file, as a release URL must offer them; returns the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / archive_name(found.key)
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name in (*PROGRAMS, MANIFEST):
            tar.add(found.directory / name, name)
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    archive.with_name(archive.name + ".sha256").write_text(f"{digest}  {archive.name}\n")
    return archive


def _root() -> Path:
    return cache_dir() / "embedded"


def _make(key: str, progress: Progress, note: Callable[[str], None]) -> Binaries:
    root = _root()
    for stale in root.glob(".tmp-*"):  # of processes that were killed: whoever lives holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    directory = root / key
    if directory.exists():
        note(f"the cached binaries are damaged ({_damage(directory)}): getting them again")
        shutil.rmtree(directory)
    with tempfile.TemporaryDirectory(dir=root, prefix=".tmp-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        origin = _downloaded(key, new, progress, note) or _compiled(new, progress)
        _install(new, directory, key, origin)
    _prune(root, key)
    return Binaries(directory, key, origin)


def _downloaded(key: str, new: Path, progress: Progress, note: Callable[[str], None]) -> str:
    """Get a release into `new`; "" where none is published."""
    url = release_url()
    if not url:
        return ""
    try:
        archive = fetch(url, archive_name(key), _root() / "downloads", progress)
    except Unpublished as why:
        note(f"{why}: compiling instead")
        return ""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name in PROGRAMS else None
            if content:
                with (new / member.name).open("wb") as stream:
                    shutil.copyfileobj(content, stream)
    archive.unlink()
    missing = [name for name in PROGRAMS if not (new / name).is_file()]
    if missing:
        raise AcquireError(
            f"The archive from {url} has no {' and no '.join(missing)}.",
            "Unset LABKIT_RELEASE_URL to compile.",
        )
    return f"downloaded from {url}"


def _compiled(new: Path, progress: Progress) -> str:
    begin = time.monotonic()
    toolchain = go(lambda text: progress(text, None))
    build(toolchain, sources(), new, progress)
    found = find_go()
    return f"compiled by Go {found[1] if found else '?'} in {span(time.monotonic() - begin)}"


def _install(new: Path, directory: Path, key: str, origin: str) -> None:
    """Make a directory of binaries appear at once, complete and on disk."""
    files = {}
    for name in PROGRAMS:
        (new / name).chmod(0o755)
        files[name] = _facts(new / name)
        _sync(new / name)
    manifest = {
        "key": key, "target": target(), "kubernetes": versions().kubernetes, "origin": origin,
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "files": files,
    }  # fmt: skip
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _sync(new / MANIFEST)
    _sync(new)
    new.rename(directory)
    _sync(directory.parent)


def _damage(directory: Path) -> str:
    """What is wrong with a directory of binaries, "" when nothing is."""
    manifest = _manifest(directory)
    if not manifest:
        return "its manifest is missing or unreadable"
    for name in PROGRAMS:
        expected = manifest["files"].get(name)
        try:
            if (directory / name).stat().st_size != expected["size"]:
                return f"{name} has another size"
            if _facts(directory / name) != expected:
                return f"{name} has another checksum"
        except (OSError, TypeError, KeyError):
            return f"{name} cannot be read"
        if not os.access(directory / name, os.X_OK):
            return f"{name} is not executable"
    return ""


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        read = json.loads((directory / MANIFEST).read_text())
        return read if isinstance(read, dict) and isinstance(read.get("files"), dict) else {}
    except (OSError, ValueError):
        return {}


def _facts(path: Path) -> dict[str, object]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _prune(root: Path, key: str) -> None:
    """Keep the newest few versions, and those that run: an ended component is started again from its file."""
    running = _running_from(root)
    others = [p for p in root.iterdir() if (p / MANIFEST).is_file() and p.name not in running | {key}]
    for old in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _running_from(root: Path) -> set[str]:
    """Names of the directories in `root` from which processes run, as far as one may see."""
    names = set()
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            program = link.readlink()
            if program.is_relative_to(root):
                names.add(program.parent.name)
    return names


@contextmanager
def _locked(progress: Progress) -> Iterator[None]:
    """One process at a time acquires; the lock ends with the process that holds it."""
    root = _root()
    private(root)
    with alone(
        root / "lock",
        3600,
        lambda: AcquireError(f"Another process has held {root / 'lock'} for an hour."),
        lambda: progress("another labkit process is building; waiting for it", None),
    ):
        yield


def _machine_error(err: OSError) -> MachineError:
    full = err.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "The disk is full" if full else f"The cache cannot be written: {err.strerror}"
    return MachineError(
        f"{what}: {err.filename or _root()}.",
        f"{'Free some space' if full else 'Correct it'}, or let XDG_CACHE_HOME name another folder.",
    )
