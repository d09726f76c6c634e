"""Whether a cluster is after a run as it was before."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit.cluster import Cluster

MEMORY_GROWTH = 0.10
_MEMORY = "memory"
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

    def damage(self, cluster: Cluster, *, memory: bool = True) -> list[str]:
        """What is different after a run; empty when nothing is.

        It waits a minute for what is about to go, and seven for memory.

        Args:
            memory: whether its growth counts; a cluster that has just been made grows with its first tasks.
        """
        begin = time.monotonic()
        while found := self._difference(Health.of(cluster), memory):
            only_memory = all(each.startswith(_MEMORY) for each in found)
            if time.monotonic() - begin > (_COLLECT_S if only_memory else _SETTLE_S):
                return found
            time.sleep(5)
        return []

    def _difference(self, now: Health, memory: bool) -> list[str]:
        found = [
            f"{name} was restarted {count - self.restarts.get(name, 0)} times"
            for name, count in now.restarts.items()
            if count > self.restarts.get(name, 0)
        ]
        found += [f"namespace {name} is left" for name in sorted(now.namespaces - self.namespaces)]
        found += [f"pod {name} is left" for name in sorted(now.pods - self.pods)]
        if memory and now.memory_bytes > self.memory_bytes * (1 + MEMORY_GROWTH):
            before, after = self.memory_bytes / 1e6, now.memory_bytes / 1e6
            found.append(f"{_MEMORY} grew from {before:.0f} to {after:.0f} MB")
        return found
