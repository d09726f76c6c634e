"""Dockerfiles and .dockerignore, read by BuildKit's own packages in the program embedded/dockerfile."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit import acquire
from labkit.errors import ImageError

MAX_FILES = 100_000
_LIMIT_S = 120.0


def parse(
    file: Path,
    context: Path | None = None,
    *,
    build_args: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """The stages of a Dockerfile as JSON; embedded/dockerfile/read.go says what the fields mean.

    Args:
        context: the build context; without one, the files of COPY are not looked for.
        build_args: values for ARG.
        env: variables of the base image.
        progress: told how far the program is that must be compiled first.

    Raises:
        ImageError: the file or the context cannot be read. Grammar errors are in the answer instead.
        AcquireError, MachineError: the program cannot be had.
    """
    try:
        file.read_bytes()
    except OSError as err:
        raise ImageError(
            f"The Dockerfile {file} cannot be read: {err}.", "Name a directory that has one."
        ) from err
    request = {
        "file": str(file),
        "context": str(context or ""),
        "args": dict(build_args or {}),
        "env": [f"{name}={value}" for name, value in (env or {}).items()],
        "limit": MAX_FILES,
    }
    return _ask(_program(progress), request)


def _program(progress: Callable[[str], None]) -> Path:
    if acquire.compiled("dockerfile") is None:
        progress("preparing the program that reads Dockerfiles, only this once: about a minute")
    return acquire.programs(["dockerfile"])["dockerfile"]


def _ask(program: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [program],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as err:
        raise ImageError(f"The Dockerfile {request['file']} cannot be read: {err}.") from err
    if not isinstance(answer, dict):
        said = done.stderr.decode(errors="replace").strip().removeprefix("dockerfile: ")
        raise ImageError(f"The Dockerfile {request['file']} cannot be read: {said}.")
    return answer
