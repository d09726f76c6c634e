"""The program kind in the version that is pinned: found on PATH, downloaded and verified, or compiled."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from labkit.acquire import compiled, programs
from labkit.acquire.download import Unpublished, fetch
from labkit.cluster.phases import Step
from labkit.errors import AcquireError
from labkit.tools import cache_dir
from labkit.versions import versions

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def kind(step: Step) -> Path:
    """The program.

    Raises:
        AcquireError: the download is not what its checksum says, or it can neither be had nor compiled.
    """
    wanted = versions().kind.version
    found = shutil.which("kind")
    if found:
        there = version_of(Path(found))
        if there == wanted:
            return Path(found)
        step.note(f"{found} is kind {there or 'of no version'}; kind {wanted} is used, which stays apart")
    return _downloaded(wanted, step.tell, step.note) or _compiled(wanted, step)


def version_of(program: Path) -> str:
    """ "0.33.0"; "" where it does not say."""
    try:
        argv = [str(program), "version", "-q"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().removeprefix("v") if done.returncode == 0 else ""


def _downloaded(
    wanted: str, tell: Callable[[str, float | None], None], note: Callable[[str], None]
) -> Path | None:
    """kind's own release, from the cache or fetched; None where it is not to be had."""
    home = cache_dir() / "tools" / f"kind-{wanted}"
    program = home / "kind"
    if program.is_file() and os.access(program, os.X_OK):
        return program
    if there := compiled("kind"):  # no network then, and asking again would only take time
        return there
    url = os.environ.get("LABKIT_KIND_URL", versions().kind.url)
    machine = _MACHINES.get(platform.machine().lower())
    if not url or machine is None:
        return None
    name = f"kind-{platform.system().lower()}-{machine}"
    release = f"{url.rstrip('/')}/v{wanted}"
    pinned = versions().kind.sha256.get(name.removeprefix("kind-"), "")
    try:
        got = fetch(release, name, home, tell, ending=".sha256sum", sha256=pinned, limit_s=300)
    except Unpublished as why:
        note(f"{why}: compiling kind {wanted} instead")
        return None
    got.chmod(0o755)
    return got.rename(program)


def _compiled(wanted: str, step: Step) -> Path:
    if sys.platform == "win32":
        raise AcquireError(
            f"kind {wanted} cannot be downloaded here.",
            "Install it (https://kind.sigs.k8s.io/docs/user/quick-start/) and put it on PATH.",
        )
    return programs(["kind"], step.tell)["kind"]
