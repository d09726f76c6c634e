"""Checks of lab 00: start here."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.error import URLError

from labkit.checks.core import Finding, expect
from labkit.checks.objects import container_state, existing, ready, seen
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


@define("00-hello-answers", "The pod hello answers through its Service", deadline_s=30)
def hello_answers(cluster: Cluster) -> Iterator[Finding]:
    """Pod and Service hello exist, and an HTTP request to the Service is answered by the pod."""
    pod = cluster.kube.find("Pod", "hello")
    yield expect(pod is not None, "there is a pod hello", seen(cluster, "Pod"))
    if pod is not None:
        yield expect(ready(pod), "the pod is Ready", cluster.kube.explain(pod) or container_state(pod))
    service = cluster.kube.find("Service", "hello")
    yield expect(service is not None, "there is a Service hello", seen(cluster, "Service"))
    if pod is None or service is None:
        return
    said = _get(cluster)
    yield expect(
        "Hello from pod hello" in said, "the Service answers with the pod's name", f"it said: {said}"
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
    """Neither the pod nor the Service hello exists."""
    for kind in ("Pod", "Service"):
        gone = cluster.kube.find(kind, "hello") is None
        yield expect(gone, f"there is no {kind} hello any more", f"{kind} hello is still there")


def _get(cluster: Cluster) -> str:
    try:
        url = cluster.url("hello")
        with opener(url).open(url, timeout=3) as answer:
            text: str = answer.read(200).decode(errors="replace")
            return text
    except (URLError, OSError) as error:
        return f"nothing, but {error}"
