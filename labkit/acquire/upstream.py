"""Upstream programs beside the cluster's own two: downloaded or compiled once per version, and kept."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from labkit.acquire.build import Progress, build
from labkit.acquire.published import published
from labkit.acquire.sources import FLAGS, link_flags, sources, target
from labkit.errors import AcquireError
from labkit.folders import private
from labkit.locks import alone
from labkit.tools import cache_dir, go
from labkit.versions import Program, versions


def programs(names: Sequence[str], progress: Progress = lambda _text, _fraction: None) -> dict[str, Path]:
    """Programs of versions.toml: from the cache, as their project publishes them, or compiled.

    Those of one Go module are compiled together, so that what they share is compiled once.

    Args:
        names: keys of versions.toml's table `programs`.
        progress: told how far it is.

    Returns:
        The path of each, by name.

    Raises:
        AcquireError, MachineError: they cannot be had; what to do is in the hint.
    """
    known = versions().programs
    for name in names:
        if name not in known:
            raise AcquireError(f"There is no program {name!r}.", f"Programs: {', '.join(known)}.")
    groups: dict[tuple[str, str, str | None, bool], list[str]] = defaultdict(list)
    for name in names:
        entry = known[name]
        if not _file(name, entry).is_file():
            groups[entry.module, entry.go, entry.ldflags, entry.test].append(name)
    for group in groups.values():
        _make(group, progress)
    return {name: _file(name, known[name]) for name in names}


def compiled(name: str) -> Path | None:
    """A program of versions.toml, if the cache has it; None otherwise."""
    file = _file(name, versions().programs[name])
    return file if file.is_file() else None


def module_key(module: str) -> str:
    """Digest of what pins the versions of a module's programs, and of how they are compiled.

    Of a module inside embedded/ it is also of its sources; those of embedded itself are in none of these.
    """
    folder = sources() / module
    digest = hashlib.sha256(repr((FLAGS, link_flags(), target())).encode())
    own = [] if module == "." else sorted(folder.rglob("*.go"))
    for file in (folder / "go.mod", folder / "go.sum", *own):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def program_key(name: str) -> str:
    """Digest of what decides the content of a program of versions.toml, 16 hexadecimal digits."""
    return _key(versions().programs[name])


def binary_name(package: str) -> str:
    """How Go names the program of a main package: by its last part that is no major version."""
    return re.sub(r"/v[0-9]+$", "", package).rsplit("/", 1)[-1]


def _key(entry: Program) -> str:
    return hashlib.sha256(f"{module_key(entry.module)}{entry}".encode()).hexdigest()[:16]


def _file(name: str, entry: Program) -> Path:
    return cache_dir() / "programs" / _key(entry) / name


def _make(names: list[str], progress: Progress) -> None:
    """Download or compile programs of one module; each appears in the cache whole or not at all."""
    known = versions().programs
    root = cache_dir() / "programs"
    private(root)
    module = known[names[0]].module.replace(".", "embedded")
    lock = root / f"lock-{module}"
    with alone(
        lock,
        3600,
        lambda: AcquireError(f"Another process has held {lock} for an hour."),
        lambda: progress("waiting for another build", None),
    ):
        missing = [name for name in names if not _file(name, known[name]).is_file()]
        missing = [name for name in missing if not _downloaded(name, known[name], progress)]
        if missing:
            _compile(missing, root, progress)


def _downloaded(name: str, entry: Program, progress: Progress) -> bool:
    if entry.release is None:
        return False
    file = _file(name, entry)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    return published(name, entry.release, file, progress)


def _compile(names: list[str], root: Path, progress: Progress) -> None:
    known = versions().programs
    first = known[names[0]]
    toolchain = go(lambda text: progress(text, None), first.go)
    with tempfile.TemporaryDirectory(dir=root, prefix=".tmp-") as scratch:
        packages = [known[name].package for name in names]
        suffix = ".test" if first.test else ""
        flags = None if first.ldflags is None else f"-s -w {first.ldflags}".strip()
        build(toolchain, sources() / first.module, Path(scratch), progress, packages, flags, first.test)
        for name in names:
            made = Path(scratch) / f"{binary_name(known[name].package)}{suffix}"
            home = _file(name, known[name]).parent
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700)
            made.chmod(0o755)
            made.rename(home / name)
