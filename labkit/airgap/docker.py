"""The Docker engine as a builder: builds from a stream, images in and out."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from labkit.children import limited
from labkit.docker import DockerCommand, telling
from labkit.errors import AcquireError, LabkitError, MachineError

OWN = "dev.labkit.airgap"
"""Label of everything made here; nothing without it is ever removed or renamed."""
KEY = "dev.labkit.airgap.key"
STAGE = f"{OWN}=stage"
_LONG_S = 1800.0
_STEP = re.compile(r"^(?:Step |#\d+ \[(?:\S+ )?)(\d+)/(\d+)(?: : |\] )(.*)$")


class Docker(DockerCommand):
    """The engine that images are built with."""

    refusal = AcquireError

    @cached_property
    def _env(self) -> dict[str, str]:
        """BuildKit where the client has it, the builder inside the engine else."""
        asked = self.attempt("buildx", "version", env=dict(os.environ))
        return {**os.environ, "DOCKER_BUILDKIT": "1" if asked.returncode == 0 else "0"}

    def inspect(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of the images that the engine has, by the name that was asked for."""
        if not names:
            return {}
        done = self.attempt("image", "inspect", *names)
        if done.returncode and "no such image" not in done.stderr.lower():
            raise self.fault(done.stderr)
        found: dict[str, dict[str, Any]] = {}
        for raw in json.loads(done.stdout or "[]"):
            for name in names:
                if _same(name, raw.get("RepoTags") or []):
                    found[name] = raw
        return found

    def own_tags(self, repository: str) -> list[str]:
        """Tags of a repository's images that carry the label, newest first."""
        form = "{{.Repository}}:{{.Tag}}"
        return self.run("image", "ls", "--filter", f"label={OWN}", "--format", form, repository).split()

    def tag(self, source: str, name: str) -> None:
        """Give an image another name."""
        self.run("tag", source, name)

    def remove(self, name: str) -> bool:
        """Remove a name, and the image with the last one; False where a container uses it."""
        return self.attempt("image", "rm", name).returncode == 0

    def prune_stages(self) -> None:
        """Remove what our own builds left between their stages."""
        self.attempt("image", "prune", "--force", "--filter", f"label={STAGE}", limit_s=300)

    def import_tar(self, file: Path, tag: str, labels: Mapping[str, str]) -> None:
        """Make an image of a root file system."""
        changes = [part for k, v in labels.items() for part in ("--change", f"LABEL {k}={json.dumps(v)}")]
        self.run("import", *changes, str(file), tag, limit_s=_LONG_S)

    def build(
        self,
        write: Callable[[IO[bytes]], None],
        tag: str,
        *,
        args: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Callable[[str, float | None], None],
    ) -> None:
        """`docker build` of a context that `write` streams as a tar archive.

        Raises:
            AcquireError, MachineError: a step failed; the message has its last words.
        """
        argv = ["build", "--network", "host", "--force-rm", "--tag", tag]
        argv += ["--progress=plain"] if self._env["DOCKER_BUILDKIT"] == "1" else []
        argv += [part for k, v in args.items() for part in ("--build-arg", f"{k}={v}")]
        argv += [part for k, v in labels.items() for part in ("--label", f"{k}={v}")]
        tail: deque[str] = deque(maxlen=30)
        with self.streaming([*argv, "-"], write) as (process, lines):
            told: tuple[str, float | None] = ("sending what it is made of", None)
            for line in lines:
                if step := _STEP.match(line):
                    told = (step[3][:100], (int(step[1]) - 1) / int(step[2]))
                progress(*told)
                if line.strip() and "DEPRECATED" not in line:
                    tail.append(line)
            if process.wait(60):
                raise build_fault(tail)

    @contextmanager
    def streaming(
        self, argv: Sequence[str], write: Callable[[IO[bytes]], None] | None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str]]]:
        """Run docker with a stream as its input; its output line by line. Ended with the block."""
        process = subprocess.Popen(
            [self.program, *argv], stdin=subprocess.PIPE if write else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env, start_new_session=True,
        )  # fmt: skip
        errors: list[BaseException] = []
        feeder = threading.Thread(target=_feed, args=(process, write, errors), daemon=True)
        feeder.start()
        try:
            with limited(process, _LONG_S, lambda: _late(argv[0])):
                assert process.stdout
                yield process, (raw.decode(errors="replace").rstrip() for raw in process.stdout)
                feeder.join(60)
                if errors:
                    raise errors[0]
        finally:
            feeder.join(10)

    def save(self, tags: Sequence[str], out: Callable[[bytes], None]) -> None:
        """`docker save`, handed on piece by piece."""
        process = subprocess.Popen(
            [self.program, "save", *tags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        with process, limited(process, _LONG_S, lambda: _late("save")):
            assert process.stdout and process.stderr
            while piece := process.stdout.read(1 << 20):
                out(piece)
            said = process.stderr.read().decode(errors="replace")
            if process.wait(60):
                raise self.fault(said)

    def load(self, write: Callable[[IO[bytes]], None]) -> None:
        """`docker load` of an archive that `write` streams.

        Raises:
            AcquireError, MachineError: the engine refused it.
        """
        with self.streaming(["load", "--quiet"], write) as (process, lines):
            said = "\n".join(deque(lines, maxlen=20))
            if process.wait(60):
                raise self.fault(said)


def _feed(
    process: subprocess.Popen[bytes], write: Callable[[IO[bytes]], None] | None, errors: list[BaseException]
) -> None:
    if write is None or process.stdin is None:
        return
    try:
        write(process.stdin)
    except BrokenPipeError:
        pass  # docker ended before it had read all; its exit code tells
    except BaseException as err:
        errors.append(err)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _late(command: str) -> MachineError:
    return MachineError(
        f"`docker {command}` has not ended within {_LONG_S / 60:.0f} min.",
        "Is the Docker engine overloaded, or its network slow? What it has done is kept: try again.",
    )


def _same(name: str, tags: Sequence[str]) -> bool:
    """Whether one of an image's tags is this name, as Docker shortens it."""
    short = re.sub(r"^(docker\.io|index\.docker\.io)/(library/)?", "", name)
    return short in tags or name in tags


def build_fault(tail: Sequence[str]) -> LabkitError:
    """The typed error of a build that failed, from its last lines."""
    said = "\n".join(tail)
    known = Docker.fault(said)
    if isinstance(known, MachineError):
        return known
    step = next((line for line in reversed(tail) if _STEP.match(line)), "")
    hint = f"Docker's last words:\n{said[-2000:]}"
    if re.search(
        r"could not resolve|failed to fetch|temporary failure|connection (?:timed out|refused)", said, re.I
    ):
        return AcquireError(
            "The build could not get packages: " + telling(said),
            "Is the package mirror reachable? LABKIT_DEBIAN_MIRROR names another one. " + hint,
        )
    return AcquireError(f"A build step failed: {step or telling(said)}", hint)
