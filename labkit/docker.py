"""Docker's command: found, run, and each fault of the engine as one typed error with a way on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from labkit.errors import LabkitError, MachineError

LIMIT_S = 60.0


class DockerCommand:
    """Docker's command line. Nothing is started or changed here that was not asked for.

    Args:
        program: another name or path of the command.

    Attributes:
        refusal: the type of error for what is wrong with a request, not with the engine.
    """

    refusal: type[LabkitError] = MachineError

    def __init__(self, program: str = "docker") -> None:
        self._wanted = program

    @cached_property
    def program(self) -> str:
        """Where the command is.

        Raises:
            MachineError: there is none.
        """
        found = shutil.which(self._wanted)
        if not found:
            raise MachineError(
                "The provider kind and its images need Docker, and there is no program `docker` on PATH.",
                "Install Docker (https://docs.docker.com/engine/install/; Debian and Ubuntu: apt-get install "
                "docker.io), or use the provider embedded, which needs none.",
            )
        return found

    def run(
        self,
        *args: str,
        input: str | None = None,
        limit_s: float = LIMIT_S,
        failure: Callable[[str], LabkitError] | None = None,
    ) -> str:
        """Standard output of `docker ARGS`.

        Args:
            failure: makes the error from what docker said; by default `fault`.

        Raises:
            MachineError: there is no engine, or it is in trouble.
            LabkitError: of the type `refusal`: it refused.
        """
        done = self.attempt(*args, input=input, limit_s=limit_s)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise engine_fault(said) or (failure or self.fault)(said)
        return done.stdout

    def attempt(
        self,
        *args: str,
        input: str | None = None,
        limit_s: float = LIMIT_S,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGS` and hand back what came of it, failed or not.

        Raises:
            MachineError: there is no docker, or it does not answer.
        """
        try:
            return subprocess.run(
                [self.program, *args], input=input, stdin=None if input is not None else subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=limit_s, check=False, env=env,
            )  # fmt: skip
        except subprocess.TimeoutExpired as err:
            raise MachineError(
                f"`docker {' '.join(args[:2])}` has not answered within {limit_s:g} s.",
                "Is the Docker engine overloaded? `docker ps` should answer at once; else restart it.",
            ) from err
        except OSError as err:
            raise MachineError(f"{self.program} cannot be run: {err.strerror}.") from err

    def info(self) -> dict[str, Any]:
        """What the engine says of itself.

        Raises:
            MachineError: no engine runs, or this user may not use it.
        """
        facts: dict[str, Any] = json.loads(self.run("info", "--format", "{{json .}}", limit_s=20))
        errors = facts.get("ServerErrors") or []
        if errors:  # newer clients print them and succeed
            raise self.fault(" ".join(errors))
        return facts

    @classmethod
    def fault(cls, said: str) -> LabkitError:
        """The typed error for what docker, or a program that uses it, said."""
        return engine_fault(said) or cls.refusal(f"Docker refused: {telling(said)}")


def engine_fault(said: str) -> LabkitError | None:
    """The error for what is wrong with the engine itself; None where it is something else."""
    low = said.lower()
    if "permission denied" in low and ("daemon" in low or "docker.sock" in low or "socket" in low):
        return MachineError(
            f"This user may not use the Docker engine: {telling(said)}",
            "As root: `usermod -aG docker USER`, then log in again; or use the provider embedded.",
        )
    if "cannot connect to the docker daemon" in low or "is the docker daemon running" in low:
        return MachineError(
            f"Docker is installed, but no engine answers: {telling(said)}",
            "Start it (`sudo systemctl start docker`, or Docker Desktop), or use the provider embedded.",
        )
    if "no space left on device" in low:
        return MachineError(
            f"The disk of the Docker engine is full: {telling(said)}",
            "`docker system df` shows what takes space, `docker system prune` frees what is unused; then the "
            "same command goes on where it was.",
        )
    if "too many open files" in low or ("inotify" in low and "limit" in low):
        return MachineError(
            f"The kernel's limit of inotify instances or open files is reached: {telling(said)}",
            "As root: sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288",
        )
    return None


def telling(said: str) -> str:
    """The first line of what was said that tells what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"error|denied|cannot|^E:|fail", line, re.IGNORECASE)]
    return (told or lines or ["no reason given"])[0][:400]
