"""What the recorder keeps of each kind of object: flat facts, the columns of its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labkit.kube import Object, dig
from labkit.kube.objects import condition, timestamp

Facts = dict[str, Any]


def node(obj: Object) -> Facts:
    taints = [f"{taint['key']}:{taint['effect']}" for taint in dig(obj, "spec.taints", [])]
    return {
        "ready": condition(obj, "Ready").get("status", ""),
        "reason": condition(obj, "Ready").get("reason", ""),
        "unschedulable": bool(dig(obj, "spec.unschedulable", False)),
        "taints": ",".join(sorted(taints)),
    }


def lease(obj: Object) -> Facts:
    return {"renewed_at": timestamp(dig(obj, "spec.renewTime"))}


def owner(obj: Object) -> str:
    """Kind and name of the controller that owns an object, "ReplicaSet/web-6d4cf56db6"; "" for none."""
    owners = dig(obj, "metadata.ownerReferences", [])
    return next((f"{each['kind']}/{each['name']}" for each in owners if each.get("controller")), "")


def pod(obj: Object) -> Facts:
    statuses = dig(obj, "status.containerStatuses", [])
    reasons = (dig(each, "state.waiting.reason") or dig(each, "state.terminated.reason") for each in statuses)
    return {
        "node": dig(obj, "spec.nodeName", ""),
        "phase": dig(obj, "status.phase", ""),
        "ready": condition(obj, "Ready").get("status") == "True",
        "terminating": dig(obj, "metadata.deletionTimestamp") is not None,
        "restarts": sum(each.get("restartCount", 0) for each in statuses),
        "reason": dig(obj, "status.reason") or next(filter(None, reasons), ""),
        "image": dig(obj, "spec.containers[0].image", ""),
        "app": dig(obj, "metadata.labels", {}).get("app.kubernetes.io/name")
        or dig(obj, "metadata.labels", {}).get("app", ""),
        "owner": owner(obj),
    }


def replica_set(obj: Object) -> Facts:
    return {
        "owner": owner(obj),
        "replicas": dig(obj, "spec.replicas", 0),
        "ready_replicas": dig(obj, "status.readyReplicas", 0),
    }


def hpa(obj: Object) -> Facts:
    return {
        "min_replicas": dig(obj, "spec.minReplicas", 1),
        "max_replicas": dig(obj, "spec.maxReplicas", 0),
        "current_replicas": dig(obj, "status.currentReplicas", 0),
        "desired_replicas": dig(obj, "status.desiredReplicas", 0),
        "cpu_utilization_percent": _cpu(dig(obj, "status.currentMetrics", []), "current"),
        "cpu_target_percent": _cpu(dig(obj, "spec.metrics", []), "target"),
        "able_to_scale": condition(obj, "AbleToScale").get("reason", ""),
        "scaling_active": condition(obj, "ScalingActive").get("reason", ""),
        "scaling_limited": condition(obj, "ScalingLimited").get("reason", ""),
    }


def _cpu(metrics: list[Object], side: str) -> float | None:
    """Average CPU utilization of an HPA's metrics, in per cent of the requests; None where there is none."""
    for metric in metrics:
        resource = metric.get("resource") or metric.get("containerResource") or {}
        value = dig(resource, f"{side}.averageUtilization")
        if resource.get("name") == "cpu" and value is not None:
            return float(value)
    return None


def deployment(obj: Object) -> Facts:
    return {
        "replicas": dig(obj, "spec.replicas", 0),
        "existing_replicas": dig(obj, "status.replicas", 0),
        "updated_replicas": dig(obj, "status.updatedReplicas", 0),
        "ready_replicas": dig(obj, "status.readyReplicas", 0),
        "image": dig(obj, "spec.template.spec.containers[0].image", ""),
    }


KINDS: dict[str, tuple[str, Callable[[Object], Facts]]] = {
    "nodes": ("Node", node),
    "leases": ("Lease", lease),
    "pods": ("Pod", pod),
    "hpas": ("HorizontalPodAutoscaler", hpa),
    "deployments": ("Deployment", deployment),
    "replica_sets": ("ReplicaSet", replica_set),
}
"""Table name → kind and its facts."""
FIXED_NAMESPACES: dict[str, str | None] = {"nodes": None, "leases": "kube-node-lease"}
"""Tables that are of one namespace (None: of none), whichever namespaces are recorded."""

_USAGE = ["t_seconds", "namespace", "name", "cpu_millicores", "memory_bytes", "window_s"]
COLUMNS: dict[str, list[str]] = {
    **{table: ["t_seconds", "namespace", "name", *facts({})] for table, (_, facts) in KINDS.items()},
    "usage": _USAGE,
    "node_usage": _USAGE,
    "probes": ["t_seconds", "name", "value", "duration_ms", "error"],
    "transitions": ["t_seconds", "kind", "namespace", "name", "what", "before", "after"],
    "gaps": ["t_seconds", "source", "error"],
}
"""Table name → its columns."""
