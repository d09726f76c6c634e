"""The cluster of a run, as the runner sees it from outside of the notebooks' kernels."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from labkit.cluster import Cluster
from labkit.cluster.phases import silent
from labkit.cluster.providers import open_cluster, provider_of, up
from labkit.errors import ClusterError, ConfigError
from labkit.kube import Object, dig
from labkit.labs.metadata import Lab

WARNINGS = 15
WORKERS = 2


class ClusterSite:
    """A cluster by name, whether it exists or not."""

    def __init__(self, name: str, provider: str) -> None:
        self.name, self.provider = name, provider
        self._lock: IO[str] | None = None
        self._passing = provider == "existing" and not provider_of(name)

    def cluster(self) -> Cluster | None:
        """The cluster, or None where there is none of that name."""
        try:
            return open_cluster(self.name, self.provider)
        except ClusterError:
            return None

    def claim(self) -> None:
        """Reserve the name: two runs must not share a cluster.

        Raises:
            ConfigError: another run of this user has it.
        """
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        path = Path(base) / f"labkit-run-{os.getuid()}-{self.name}.lock"
        self._lock = path.open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(
                f"Another `labkit run` uses the cluster {self.name!r}.",
                "Wait for it, or choose another one with --cluster.",
            ) from None

    def release(self) -> None:
        """Give the name free."""
        if self._lock:
            Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()

    def gap(self, lab: Lab) -> str:
        """What an existing cluster lacks that a lab needs, or ""; what labkit makes itself lacks nothing.

        Raises:
            LabkitError: there is no such context, or its API server does not answer.
        """
        if self.provider != "existing":
            return ""
        cluster = self._existing()
        workers = sum(node.ready == "True" for node in cluster.workers())
        if workers < WORKERS:
            return f"Labs need {WORKERS} workers; here the nodes that are Ready and take pods are {workers}."
        return cluster.image_gap() if lab.builds_images else ""

    def maker(self) -> str:
        """The provider that runs the cluster; of an existing one that of the cluster behind its context.

        Raises:
            LabkitError: as `gap`.
        """
        return self.provider if self.provider != "existing" else self._existing().underlying().provider

    def _existing(self) -> Cluster:
        return self.cluster() or up(self.name, self.provider, listener=silent)

    def warnings(self) -> list[str]:
        """The latest warning events of all namespaces, oldest first."""
        cluster = self.cluster()
        if cluster is None:
            return []
        events = cluster.kube.list("v1/Event", everywhere=True, fields="type=Warning")
        return [_line(event) for event in sorted(events, key=_when)[-WARNINGS:]]

    def facts(self) -> dict[str, str]:
        """Version, nodes and memory of the cluster."""
        cluster = self.cluster()
        if cluster is None:
            return {}
        status = cluster.status()
        workers = sum(not node.is_control_plane for node in status.nodes)
        facts = {"Kubernetes": f"v{status.version.lstrip('v')}", "Workers": str(workers)}
        if status.memory_bytes:
            facts["Memory of the cluster"] = f"{status.memory_bytes / 2**20:.0f} MiB, its pods included"
        return facts

    def remove(self) -> None:
        """Take the cluster down, if it is there and ours to remove.

        An existing one stays; its context is forgotten where this run was the first to name it.
        """
        cluster = self.cluster()
        if cluster is not None and (self.provider != "existing" or self._passing):
            cluster.down()


def _when(event: Object) -> str:
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or dig(event, "metadata.creationTimestamp", "")
    )


def _line(event: Object) -> str:
    about = f"{dig(event, 'involvedObject.kind', '')}/{dig(event, 'involvedObject.name', '')}"
    return f"{_when(event)[11:19]} {about} {event.get('reason', '')}: {str(event.get('message', '')).strip()}"
