"""What several checks read from the API."""

from __future__ import annotations

from labkit.cluster import Cluster
from labkit.cluster.providers import open_cluster
from labkit.errors import ClusterError
from labkit.kube import Object, dig


def ready(obj: Object | None) -> bool:
    """Whether an object's condition Ready is True."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in dig(obj, "status.conditions", []))


def seen(cluster: Cluster, kind: str, namespace: str = "default") -> str:
    """The names that there are of a kind, for a hint."""
    names = [dig(obj, "metadata.name") for obj in cluster.kube.list(kind, namespace=namespace)]
    there = ", ".join(sorted(names)[:8]) or "none"
    return f"in namespace {namespace} there is: {there}"


def container_state(pod: Object) -> str:
    """Phase of a pod, and what its containers wait for or ended with."""
    parts = [f"phase {dig(pod, 'status.phase', 'unknown')}"]
    for status in dig(pod, "status.containerStatuses", []):
        for name, state in dig(status, "state", {}).items():
            reason = state.get("reason", "")
            parts.append(f"container {status['name']} {name}{f' ({reason})' if reason else ''}")
    return ", ".join(parts)


def running_pods(cluster: Cluster, labels: str, namespace: str = "default") -> list[Object]:
    """Pods of a label selector that are not being deleted."""
    pods = cluster.kube.list("Pod", namespace=namespace, labels=labels)
    return [pod for pod in pods if not dig(pod, "metadata.deletionTimestamp")]


def existing(name: str, provider: str | None = None) -> Cluster | None:
    """A cluster by name, None where there is none."""
    try:
        return open_cluster(name, provider)
    except ClusterError:
        return None
