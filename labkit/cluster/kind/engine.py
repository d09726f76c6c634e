"""The Docker engine as a provider of nodes: containers, networks and images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.docker import LIMIT_S, DockerCommand, engine_fault
from labkit.errors import ClusterError

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
OWN_LABEL = "dev.labkit.cluster"
STATE_LABEL = "dev.labkit.state"


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


class Engine(DockerCommand):
    """The engine that runs the node containers."""

    refusal = ClusterError

    def kind_clusters(self) -> list[str]:
        """Names of the kind clusters that have a container which runs, whoever made them."""
        shown = f'{{{{.Label "{CLUSTER_LABEL}"}}}}'
        return sorted(set(self.run("ps", "--filter", f"label={CLUSTER_LABEL}", "--format", shown).split()))

    def containers(self, cluster: str) -> list[Container]:
        """The node containers of a kind cluster, by name."""
        ids = self.run("ps", "-aq", "--filter", f"label={CLUSTER_LABEL}={cluster}").split()
        if not ids:
            return []
        done = self.attempt("inspect", *ids)
        if done.returncode and "no such object" not in done.stderr.lower():  # one that has just gone
            raise self.fault(done.stderr)
        found = [_container(raw) for raw in json.loads(done.stdout or "[]")]
        return sorted(found, key=lambda each: each.name)

    def exec(self, container: str, *argv: str, input: str | None = None, limit_s: float = LIMIT_S) -> str:
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
            fault = engine_fault(done.stderr)
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
