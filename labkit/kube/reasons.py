"""Why an object is not as it should be: read from status, conditions, pods and events, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from labkit.errors import KubeError
from labkit.kube.objects import Object, condition, dig, quantity, selector, title

if TYPE_CHECKING:
    from labkit.kube.client import Kube

_LIMIT = 4
_LOG_LINES = 5
_GOOD = {
    "Ready",
    "Available",
    "Progressing",
    "ScalingActive",
    "AbleToScale",
    "PodScheduled",
    "Established",
    "Synced",
}


def explain(kube: Kube, obj: Object) -> str:
    """One or more lines that say what keeps `obj` from being ready, "" if nothing is seen."""
    found = list(dict.fromkeys(reason for reason in _reasons(kube, obj) if reason))
    more = [f"… and {len(found) - _LIMIT} more"] if len(found) > _LIMIT else []
    return "\n".join([*found[:_LIMIT], *more])


def _reasons(kube: Kube, obj: Object) -> Iterator[str]:
    kind = obj.get("kind")
    if kind == "Pod":
        yield from _pod(kube, obj)
        return
    if kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Service"):
        yield from _pods_of(kube, obj)
    if dig(obj, "metadata.deletionTimestamp") and dig(obj, "metadata.finalizers"):
        yield f"{title(obj)} is being deleted and waits for {', '.join(obj['metadata']['finalizers'])}"
    for entry in dig(obj, "status.conditions", []):
        wrong = entry.get("status") != "True" if entry["type"] in _GOOD else entry.get("status") == "True"
        if wrong and entry["type"] not in ("Complete", "SuccessCriteriaMet", "ScalingLimited"):
            why = entry.get("message") or entry.get("reason")
            yield f"{title(obj)}: {entry['type']} is {entry['status']}: {why}"
    yield from _warnings(kube, obj)


def _pods_of(kube: Kube, obj: Object) -> Iterator[str]:
    labels, namespace = selector(obj), dig(obj, "metadata.namespace", "")
    pods = kube.list("Pod", namespace=namespace, labels=labels) if labels else []
    unready = [pod for pod in pods if condition(pod, "Ready").get("status") != "True"]
    for pod in [pod for pod in unready if dig(pod, "status.phase") != "Succeeded"][:_LIMIT]:
        yield from _pod(kube, pod)
    if not pods and obj["kind"] == "Service":
        yield f"{title(obj)} selects no pod: no pod has the labels {labels or '(it has no selector)'}"
    if obj["kind"] == "Deployment":
        for replica_set in kube.list("ReplicaSet", namespace=namespace, labels=labels):
            if dig(replica_set, "spec.replicas", 0) > dig(replica_set, "status.replicas", 0):
                yield from _warnings(kube, replica_set)


def _pod(kube: Kube, pod: Object) -> Iterator[str]:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield f"{title(pod)} fits on no node: {scheduled.get('message', '')}{_capacity(kube, pod)}"
        return
    if dig(pod, "status.reason"):
        yield f"{title(pod)} is {pod['status']['reason']}: {dig(pod, 'status.message', '')}"
    statuses = [*dig(pod, "status.initContainerStatuses", []), *dig(pod, "status.containerStatuses", [])]
    found = [reason for status in statuses for reason in _container(kube, pod, status)]
    yield from found
    if not found and condition(pod, "Ready").get("status") != "True":
        yield from _warnings(kube, pod)
    if not found and not statuses:
        node = dig(pod, "spec.nodeName", "no node yet")
        yield f"{title(pod)} is {dig(pod, 'status.phase', 'Pending')} on {node}"


def _container(kube: Kube, pod: Object, status: Object) -> Iterator[str]:
    who = f"{title(pod)}, container {status['name']}"
    waiting = dig(status, "state.waiting", {})
    ended = dig(status, "state.terminated") or dig(status, "lastState.terminated", {})
    reason = waiting.get("reason", "")
    if reason in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"):
        message = f"image {status['image']} cannot be pulled: {waiting.get('message', '')}"
        yield f"{who}: {reason}: {message} (`labkit image list` shows the images there are)"
    elif ended and (reason == "CrashLoopBackOff" or ended.get("exitCode", 0) != 0):
        how = f"exit code {ended.get('exitCode')} ({ended.get('reason', 'Error')})"
        times = f"{reason or 'restarted'}, {status.get('restartCount', 0)} restarts"
        message = ended.get("message", "")
        yield f"{who}: {times}: {how}{': ' if message else ''}{message}{_last_log(kube, pod, status)}"
    elif reason and reason not in ("ContainerCreating", "PodInitializing"):
        yield f"{who}: {reason}: {waiting.get('message', '')}"


def _last_log(kube: Kube, pod: Object, status: Object) -> str:
    previous = bool(dig(status, "lastState.terminated")) and not dig(status, "state.terminated")
    try:
        text = kube.logs(
            pod["metadata"]["name"],
            namespace=pod["metadata"]["namespace"],
            container=status["name"],
            tail=_LOG_LINES,
            previous=previous,
        )
    except KubeError:
        return ""
    lines = text.strip().splitlines()[-_LOG_LINES:]
    return "\n    last log lines: " + "\n    ".join(lines) if lines else ""


def _capacity(kube: Kube, pod: Object) -> str:
    """What the pod asks for and what the roomiest node has in all, for an `Insufficient …` message."""
    message = condition(pod, "PodScheduled").get("message", "")
    parts = []
    for resource, unit, factor in (("cpu", "millicores", 1000), ("memory", "MiB", 1 / 1024**2)):
        if f"Insufficient {resource}" not in message:
            continue
        requests = [dig(each, f"resources.requests.{resource}", 0) for each in pod["spec"]["containers"]]
        nodes = kube.list("Node")
        largest = max(
            (quantity(dig(node, f"status.allocatable.{resource}", 0)) for node in nodes), default=0.0
        )
        asked = sum(map(quantity, requests)) * factor
        room = f"the largest node has {largest * factor:.0f} in all"
        parts.append(f"it requests {asked:.0f} {unit} of {resource}, {room}")
    return f" ({'; '.join(parts)})" if parts else ""


def _warnings(kube: Kube, obj: Object) -> Iterator[str]:
    """The latest warning events about an object, one per reason."""
    latest: dict[str, Object] = {}
    for event in kube.events(obj):
        if event.get("type") == "Warning":
            latest[event.get("reason", "")] = event
    for reason, event in list(latest.items())[-2:]:
        count = event.get("count") or dig(event, "series.count", 1)
        times = f" ({count} times)" if count > 1 else ""
        yield f"{title(obj)}: {reason}: {event.get('message', '').strip()}{times}"
