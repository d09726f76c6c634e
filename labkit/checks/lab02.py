"""Checks of lab 02: keep workers alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labkit.checks.core import Finding, expect
from labkit.checks.nodes import (
    ILL,
    about,
    answers,
    kubelet_says,
    ready_state,
    taints_of,
    two_well_workers,
    well,
)
from labkit.checks.objects import ready
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import KubeError
from labkit.kube import Object, dig
from labkit.labs.rounds import FAULTS, SILENT, Case
from labkit.labs.rounds import well as still_ill


@define("02-third-worker-joined", "The third worker has joined", deadline_s=40)
def third_worker_joined(cluster: Cluster) -> Iterator[Finding]:
    """worker-3 is Ready and takes pods."""
    yield well(cluster, "worker-3")


@define("02-both-unknown", "The cluster has lost sight of both workers", deadline_s=60)
def both_unknown(cluster: Cluster, nodes: Sequence[str]) -> Iterator[Finding]:
    """Ready is Unknown, and no new pods are sent there."""
    for name in nodes:
        node = cluster.kube.find("Node", name)
        state = ready_state(node)
        yield expect(state == "Unknown", f"{name}: nobody knows how it is", f"its condition Ready is {state}")
        taints = taints_of(node)
        said = f"its taints: {', '.join(taints) or 'none'}"
        yield expect(f"{ILL[1]}:NoSchedule" in taints, f"{name} gets no new pods", said)


@define("02-both-well", "Both are back, and their pods never noticed", deadline_s=60)
def both_well(cluster: Cluster, nodes: Sequence[str], before: Mapping[str, Object]) -> Iterator[Finding]:
    """The nodes are Ready without taints; on each runs the same pod as before, never restarted."""
    for name in nodes:
        yield well(cluster, name)
        found = cluster.kube.find("Pod", dig(before[name], "metadata.name"))
        same = dig(found, "metadata.uid") == dig(before[name], "metadata.uid")
        yield expect(same and ready(found), f"the pod on {name} is the same, and ready", about(found))
        count = [s.get("restartCount", 0) for s in dig(found, "status.containerStatuses", [])]
        was = [s.get("restartCount", 0) for s in dig(before[name], "status.containerStatuses", [])]
        yield expect(count == was, "its container was not restarted", f"restarts: {was} before, {count} now")


@define("02-kubelet-fails", "The kubelet refuses its configuration", deadline_s=20)
def kubelet_fails(cluster: Cluster, node: str) -> Iterator[Finding]:
    """Its last words are about the reservation, and it does not answer."""
    reserved = dig(cluster.kubelet_config(node), "systemReserved.memory", "nothing")
    yield expect(reserved != "nothing", f"{node} is told to reserve memory", f"it reserves {reserved}")
    said = cluster.kubelet_log(node, 1, r"invalid Node Allocatable|^E\d{4}|rror")
    words = "invalid Node Allocatable"
    yield expect(words in said, f"its log says: {words}", f"the last error there: {said[-160:] or 'none'}")
    answers = kubelet_says(cluster, node) == "ok"
    yield expect(not answers, "the kubelet does not answer", "it still answers")


@define("02-kubelet-mended", "The kubelet runs again", deadline_s=60)
def kubelet_mended(cluster: Cluster, node: str) -> Iterator[Finding]:
    """It reserves no more than the machine has, answers the API server, and the node is Ready."""
    reserved = dig(cluster.kubelet_config(node), "systemReserved.memory")
    yield expect(reserved != "900Gi", "the bad reservation is gone", f"systemReserved.memory is {reserved}")
    yield from answers(cluster, node)


@define("02-silent-fault", "Ready, and yet it takes no orders", deadline_s=30)
def silent_fault(cluster: Cluster, node: str) -> Iterator[Finding]:
    """The node is Ready, while its kubelet refuses the API server."""
    yield well(cluster, node)
    said = kubelet_says(cluster, node)
    yield expect("Unauthorized" in said, "its kubelet refuses the API server", f"asked, it says: {said}")


@define("02-orders-taken", "The kubelet knows the API server again", deadline_s=60)
def orders_taken(cluster: Cluster, node: str, pod: str) -> Iterator[Finding]:
    """It has a client CA, answers the API server, hands out its pod's log, and the node is Ready."""
    file = dig(cluster.kubelet_config(node), "authentication.x509.clientCAFile")
    yield expect(bool(file), "its configuration names a client CA", "authentication.x509 is empty")
    yield from answers(cluster, node)
    try:
        cluster.kube.logs(pod, tail=1)
        said = ""
    except KubeError as error:  # a kubelet that has just started does not know its pods yet
        said = error.message
    yield expect(not said, f"the log of {pod} can be read", f"asked for, the API says: {said}")


@define("02-first-round", "You found it, and the worker is well", deadline_s=60)
def first_round(cluster: Cluster, case: Case, node: object, cause: object) -> Iterator[Finding]:
    """The worker and its fault are those that were drawn, and it is repaired."""
    yield from _round(cluster, case, node, cause)


@define("02-second-round", "You found it again, and the worker is well", deadline_s=60)
def second_round(cluster: Cluster, case: Case, node: object, cause: object) -> Iterator[Finding]:
    """As in the first round."""
    yield from _round(cluster, case, node, cause)


@define("02-third-round", "Three of three, and the worker is well", deadline_s=60)
def third_round(cluster: Cluster, case: Case, node: object, cause: object) -> Iterator[Finding]:
    """As in the first round."""
    yield from _round(cluster, case, node, cause)


@define("02-cleaned-up", "Two workers, both well, and nothing else left", deadline_s=90)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """worker-1 and worker-2 are Ready and take pods; the lab's objects are gone."""
    yield from two_well_workers(cluster)
    gone = cluster.kube.find("DaemonSet", "echo") is None
    yield expect(gone, "the DaemonSet echo is gone", "it is still there")


def _round(cluster: Cluster, case: Case, node: object, cause: object) -> Iterator[Finding]:
    right_node, right_cause = case.says(node, cause)
    seen = f"when the round began: {case.about(node)}"
    yield expect(right_node, "you name the worker that is ill", f"you said {node!r}; {seen}", "node")
    named = {name.lower(): fault for name, fault in FAULTS.items()}.get(str(cause).strip().lower())
    causes = f"you said {cause!r}; there are: {', '.join(FAULTS)}"
    yield expect(named is not None, "the cause is one of those in the list", causes, "list")
    if named is not None:
        same = named.kind == case.kind
        key = "heartbeat" if not same else "doors" if case.kind == SILENT else "papers"
        why = f"you said {cause!r}{f'; {seen}' if right_node else ''}"
        yield expect(right_cause, "you name the cause", why, key)
    if right_node and right_cause:
        wrong = still_ill(cluster, case.node)
        yield expect(not wrong, "the worker is repaired", wrong, "ill")
        found = well(cluster, case.node)
        yield expect(found.ok, found.text, found.hint, "ill")
