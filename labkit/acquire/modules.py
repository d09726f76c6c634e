"""Files of upstream Go modules, such as the manifests that a project publishes with its source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from labkit.acquire.build import environment
from labkit.acquire.sources import sources
from labkit.errors import AcquireError
from labkit.tools import go
from labkit.versions import versions

_LIMIT_S = 600


def module_folder(path: str, module: str = ".") -> Path:
    """The read-only folder of a Go module at its pinned version, downloaded where it is not in Go's cache.

    Args:
        path: the module's path, such as "go.universe.tf/metallb".
        module: folder of embedded/ with the go.mod that pins it.

    Raises:
        AcquireError: it is not pinned there, or cannot be downloaded.
    """
    oldest = next((p.go for p in versions().programs.values() if p.module == module and p.go), "")
    toolchain = go(oldest=oldest)
    home = sources() / module
    argv = [str(toolchain), "mod", "download", "-json", path]
    done = subprocess.run(
        argv,
        cwd=home,
        env=environment(toolchain),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    try:
        answer = json.loads(done.stdout or "{}")
    except ValueError:
        answer = {}
    if "Dir" not in answer:
        said = str(answer.get("Error") or done.stderr.strip()[-500:] or f"exit code {done.returncode}")
        raise AcquireError(
            f"The Go module {path} cannot be had: {said}",
            "Go gets modules through GOPROXY: is there a network?",
        )
    return Path(answer["Dir"])


def module_file(source: str) -> Path:
    """A file of a Go module at its pinned version.

    Args:
        source: "MODULE//FILE", of a module that embedded/ pins, or "MODULE@FOLDER//FILE", of one that
            embedded/FOLDER pins.

    Raises:
        AcquireError: see `module_folder`.
    """
    where, _, file = source.partition("//")
    module, _, folder = where.partition("@")
    return module_folder(module, folder or ".") / file
