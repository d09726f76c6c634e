"""Whether a cluster is after a run as it was before."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit.cluster import Cluster

MEMORY_GROWTH = 0.10
_SETTLE_S = 60.0
_COLLECT_S = 420.0
"""Go gives memory back after a collection that it forces every two minutes; etcd compacts every five."""


@dataclass(frozen=True)
class Health:
    """A cluster's state that a run must not change.

    Attributes:
        memory_bytes: of all its processes.
        restarts: component → how often it was started again.
        namespaces, pods: their names.
    """

    memory_bytes: int
    restarts: dict[str, int]
    namespaces: frozenset[str]
    pods: frozenset[str]

    @classmethod
    def of(cls, cluster: Cluster) -> Health:
        """As it is now."""
        status = cluster.status()
        pods = cluster.kube.list("Pod", everywhere=True)
        return cls(
            status.memory_bytes,
            {component.name: component.restarts for component in status.components},
            frozenset(each["metadata"]["name"] for each in cluster.kube.list("Namespace")),
            frozenset(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods),
        )

    def settled(self, cluster: Cluster, *, memory: bool = True) -> Health:
        """The health after a run: a minute is waited for what is about to go, and seven for memory.

        Args:
            memory: whether its growth is told; a slice is too short for it.
        """
        begin = time.monotonic()
        while True:
            now = Health.of(cluster)
            patience_s = _SETTLE_S if self.damage(now) else _COLLECT_S if memory and self.growth(now) else 0.0
            if time.monotonic() - begin > patience_s:
                return now
            time.sleep(5)

    def damage(self, now: Health) -> list[str]:
        """What is different from this, but memory; empty when nothing is."""
        found = [
            f"{name} was restarted {count - self.restarts.get(name, 0)} times"
            for name, count in now.restarts.items()
            if count > self.restarts.get(name, 0)
        ]
        found += [f"namespace {name} is left" for name in sorted(now.namespaces - self.namespaces)]
        return found + [f"pod {name} is left" for name in sorted(now.pods - self.pods)]

    def growth(self, now: Health) -> list[str]:
        """That memory has grown, if it has by more than a cluster may."""
        if now.memory_bytes <= self.memory_bytes * (1 + MEMORY_GROWTH):
            return []
        return [f"memory grew from {self.memory_bytes / 1e6:.0f} to {now.memory_bytes / 1e6:.0f} MB"]
