"""The Docker engine, through its command: each fault becomes one typed error with a way on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labkit.errors import ClusterError, LabkitError, MachineError

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
OWN_LABEL = "dev.labkit.cluster"
STATE_LABEL = "dev.labkit.state"
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Container:
    """A node container.

    Attributes:
        state: Docker's word for it: running, paused, exited, created, restarting, dead.
        address: in the cluster's network, "" while it does not run.
    """

    name: str
    state: str
    role: str
    address: str = ""
    image: str = ""


class Engine:
    """Docker's command line. Nothing is started or changed here that was not asked for.

    Args:
        program: another name or path of the command.
    """

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
                "The provider kind needs Docker, and there is no program `docker` on PATH.",
                "Install Docker (https://docs.docker.com/engine/install/), or use the provider embedded, "
                "which needs none.",
            )
        return found

    def run(
        self,
        *args: str,
        input: str | None = None,
        limit_s: float = _LIMIT_S,
        failure: Callable[[str], LabkitError] | None = None,
    ) -> str:
        """Standard output of `docker ARGS`.

        Args:
            failure: makes the error from what docker said; by default `fault`.

        Raises:
            MachineError, ClusterError: it failed.
        """
        done = self.attempt(*args, input=input, limit_s=limit_s)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise _engine_fault(said) or (failure or _other)(said)
        return done.stdout

    def attempt(
        self, *args: str, input: str | None = None, limit_s: float = _LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGS` and hand back what came of it, failed or not.

        Raises:
            MachineError: there is no docker, or it does not answer.
        """
        try:
            return subprocess.run(
                [self.program, *args], input=input, stdin=None if input is not None else subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as err:
            raise MachineError(
                f"`docker {' '.join(args[:2])}` has not answered within {limit_s:.0f} s.",
                "Is the Docker engine overloaded? `docker ps` should answer at once; else restart it.",
            ) from err
        except OSError as err:
            raise MachineError(f"{self.program} cannot be run: {err.strerror}.") from err

    def info(self) -> dict[str, Any]:
        """What the engine says of itself.

        Raises:
            MachineError: no engine runs, or this user may not use it.
        """
        said = self.run("info", "--format", "{{json .}}", limit_s=20)
        facts: dict[str, Any] = json.loads(said)
        errors = facts.get("ServerErrors") or []
        if errors:  # newer clients print them and succeed
            raise _engine_fault(" ".join(errors)) or _other(" ".join(errors))
        return facts

    def containers(self, cluster: str) -> list[Container]:
        """The node containers of a kind cluster, by name."""
        ids = self.run("ps", "-aq", "--filter", f"label={CLUSTER_LABEL}={cluster}").split()
        if not ids:
            return []
        found = [_container(raw) for raw in json.loads(self.run("inspect", *ids))]
        return sorted(found, key=lambda each: each.name)

    def exec(self, container: str, *argv: str, input: str | None = None, limit_s: float = _LIMIT_S) -> str:
        """Standard output of a command in a container."""
        flags = ["-i"] if input is not None else []
        return self.run("exec", *flags, container, *argv, input=input, limit_s=limit_s)

    def network(self, name: str) -> dict[str, Any] | None:
        """A network as Docker describes it, None where there is none."""
        return self._inspected("network", name)

    def image(self, name: str) -> dict[str, Any] | None:
        """An image as Docker describes it, None where the engine has none of that name."""
        return self._inspected("image", name)

    def _inspected(self, kind: str, name: str) -> dict[str, Any] | None:
        done = self.attempt(kind, "inspect", name)
        if done.returncode:
            fault = _engine_fault(done.stderr)
            if fault:
                raise fault
            return None
        described: dict[str, Any] = json.loads(done.stdout)[0]
        return described


def exec_argv(engine: Engine, container: str, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
    """The command line that runs `argv` in a container."""
    return [engine.program, "exec", *(["-it"] if terminal else []), container, *argv]


def _container(raw: dict[str, Any]) -> Container:
    labels = raw["Config"].get("Labels") or {}
    networks = raw["NetworkSettings"].get("Networks") or {}
    addresses = [n.get("IPAddress", "") for n in networks.values()]
    return Container(
        raw["Name"].lstrip("/"),
        raw["State"]["Status"],
        labels.get(ROLE_LABEL, ""),
        next(filter(None, addresses), ""),
        raw["Config"]["Image"],
    )


def _engine_fault(said: str) -> LabkitError | None:
    """The error for what is wrong with the engine itself; None where it is something else."""
    low = said.lower()
    if "permission denied" in low and ("daemon" in low or "docker.sock" in low or "socket" in low):
        return MachineError(
            f"This user may not use the Docker engine: {_first(said)}",
            "As root: `usermod -aG docker USER`, then log in again; or use the provider embedded.",
        )
    if "cannot connect to the docker daemon" in low or "is the docker daemon running" in low:
        return MachineError(
            f"Docker is installed, but no engine answers: {_first(said)}",
            "Start it (`sudo systemctl start docker`, or Docker Desktop), or use the provider embedded.",
        )
    if "no space left on device" in low:
        return MachineError(
            f"The disk of the Docker engine is full: {_first(said)}",
            "`docker system df` shows what takes space; `docker system prune` frees what is unused.",
        )
    if "too many open files" in low or ("inotify" in low and "limit" in low):
        return MachineError(
            f"The kernel's limit of inotify instances or open files is reached: {_first(said)}",
            "As root: sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288",
        )
    return None


def _other(said: str) -> LabkitError:
    return ClusterError(f"Docker refused: {_first(said)}")


def fault(said: str) -> LabkitError:
    """The typed error for what docker, or a program that uses it, said."""
    return _engine_fault(said) or _other(said)


def _first(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or "denied" in line or "cannot" in line.lower()]
    return (told or lines or ["no reason given"])[0][:400]
