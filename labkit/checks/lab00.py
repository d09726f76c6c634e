"""Checks of lab 00: start here."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.error import URLError

from labkit.checks.core import Finding, expect
from labkit.checks.objects import container_state, existing, ready, running_pods, seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.kube import Object, dig
from labkit.kube.direct import opener


@define("00-workers-ready", "A cluster with two Ready workers", deadline_s=60)
def workers_ready(cluster_name: str) -> Iterator[Finding]:
    """The cluster of that name runs and has two workers that are Ready."""
    cluster = existing(cluster_name)
    yield expect(cluster is not None, f"cluster {cluster_name} exists", "no cluster of that name is running")
    if cluster is None:
        return
    nodes = cluster.workers()
    good = [node.name for node in nodes if node.ready == "True"]
    states = ", ".join(f"{node.name} Ready={node.ready}" for node in nodes) or "no node has registered"
    yield expect(len(good) >= 2, "two workers or more are Ready", f"now: {states}")


@define("00-service", "The Service hello leads to the pod", deadline_s=30)
def service(cluster: Cluster) -> Iterator[Finding]:
    """The Service hello listens on port 80, has chosen the pod, and is answered by it."""
    found = cluster.kube.find("Service", "hello")
    yield expect(found is not None, "there is a Service hello", seen(cluster, "Service"), "missing")
    if found is None:
        return
    selector = dig(found, "spec.selector", {})
    slices = cluster.kube.list("EndpointSlice", labels="kubernetes.io/service-name=hello")
    chosen = [
        address for each in slices for end in each.get("endpoints") or () for address in end["addresses"]
    ]
    labels = dig(cluster.kube.find("Pod", "hello"), "metadata.labels", {})
    yield expect(
        bool(chosen),
        "it has chosen a pod",
        f"it has no endpoint; it looks for {_words(selector)}, and the pod hello carries {_words(labels)}",
        "selector",
    )
    ports = dig(found, "spec.ports", [])
    listens = ", ".join(str(port["port"]) for port in ports)
    yield expect(
        any(p["port"] == 80 for p in ports), "it listens on port 80", f"it listens on {listens}", "port"
    )
    if not chosen or not any(port["port"] == 80 for port in ports):
        return
    said = _get(cluster)
    leads = ", ".join(f"{port['port']} to {port.get('targetPort')}" for port in ports)
    yield expect(
        "Hello from pod hello" in said,
        "it answers with the pod's name",
        f"it leads port {leads}; a request got {said}",
        "target-port",
    )


@define("00-backoff", "You know how long the next back-off is", deadline_s=5)
def backoff(cluster: Cluster, answer_s: object) -> Iterator[Finding]:
    """The pause after the next crash, from the number of restarts: 10 s × 2^(restarts - 1), at most 300 s."""
    pod = cluster.kube.find("Pod", "hello")
    restarts = dig(pod, "status.containerStatuses[0].restartCount", 0)
    yield expect(restarts >= 2, "the pod hello has crashed a few times", f"restarts so far: {restarts}")
    if restarts < 2:
        return
    right = min(300, 10 * 2 ** (restarts - 1))
    key = "doubled" if answer_s == right / 2 else "longest" if answer_s == 300 else "count"
    told = f"you said {answer_s}; the container was started again {restarts} times so far"
    yield expect(answer_s == right, "the next pause is as long as you say", told, key)


@define("00-survives", "Two pods serve hello, and are replaced", deadline_s=60)
def survives(cluster: Cluster) -> Iterator[Finding]:
    """A Deployment hello keeps two Ready pods that the Service hello has chosen."""
    found = cluster.kube.find("Deployment", "hello")
    yield expect(found is not None, "there is a Deployment hello", seen(cluster, "Deployment"), "missing")
    if found is None:
        return
    replicas = dig(found, "spec.replicas", 1)
    yield expect(replicas == 2, "it wants two pods", f"it wants {replicas}", "replicas")
    labels = dig(found, "spec.template.metadata.labels", {})
    fits = labels.get("app") == "hello"
    yield expect(fits, "its pods carry the Service's label", f"they carry {_words(labels)}", "selector")
    ready_pods = dig(found, "status.readyReplicas", 0)
    current = (
        dig(found, "status.updatedReplicas", 0) >= replicas
        and dig(found, "status.unavailableReplicas", 0) == 0
    )
    yield expect(
        ready_pods == replicas and current, "all of them are Ready", _pods(cluster, labels), "not-ready"
    )


@define("00-restarted-in-place", "The same pod runs the program again", deadline_s=30)
def restarted_in_place(cluster: Cluster, before: Object) -> Iterator[Finding]:
    """The pod has the uid it had, a restart more, and answers."""
    pod = cluster.kube.find("Pod", "hello")
    yield expect(pod is not None, "there is a pod hello", seen(cluster, "Pod"))
    if pod is None:
        return
    same = dig(pod, "metadata.uid") == dig(before, "metadata.uid")
    yield expect(same, "it is the same pod as before", "its uid has changed: it is another pod of that name")
    counts = [dig(one, "status.containerStatuses[0].restartCount", 0) for one in (before, pod)]
    yield expect(counts[1] > counts[0], "its container was started again", f"restarts so far: {counts[1]}")
    yield expect(ready(pod), "it is Ready", cluster.kube.explain(pod) or container_state(pod))


@define("00-cleaned-up", "Nothing of this lab is left", deadline_s=40)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """Neither the pod nor the Service nor the Deployment hello exists."""
    for kind in ("Pod", "Service", "Deployment"):
        gone = cluster.kube.find(kind, "hello") is None
        yield expect(gone, f"there is no {kind} hello any more", f"{kind} hello is still there")


def _words(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "no label"


def _pods(cluster: Cluster, labels: dict[str, str]) -> str:
    pods = running_pods(cluster, ",".join(f"{name}={value}" for name, value in labels.items()))
    states = (cluster.kube.explain(pod) or container_state(pod) for pod in pods if not ready(pod))
    return "; ".join(states) or f"{len(pods)} pods so far"


def _get(cluster: Cluster) -> str:
    try:
        url = cluster.url("hello")
        with opener(url).open(url, timeout=3) as answer:
            text: str = answer.read(200).decode(errors="replace")
            return text
    except (URLError, OSError) as error:
        return f"nothing, but {error}"
