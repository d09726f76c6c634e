"""Rounds in which one worker is ill: a fault that is drawn and not told, what can be seen of it, its name."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pandas as pd

from labkit.cluster import Cluster
from labkit.cluster.waiting import wait_for
from labkit.course.helping import Notes
from labkit.errors import LabkitError, WaitTimeout
from labkit.kube import Kube, Object, dig, quantity

SILENT, READY = "silent", "ready"
ROUNDS = ("first", "second", "third")
_KNOCK_S = 4.5
"""Long enough for a network to say that there is no such machine."""
_SHOWS_S = 25.0
_FEW = 5
_USUAL = 20
"""A kubelet takes 110 pods by default; fewer than this and somebody has configured it."""
TAINT = "maintenance"
_OWN = ("node.kubernetes.io/", "node-role.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


@dataclass(frozen=True)
class Fault:
    """What can be wrong with a worker.

    Attributes:
        kind: SILENT, if its heartbeat stops; READY, if the node goes on saying that all is well.
    """

    kind: str
    strike: Callable[[Cluster, str], object]


def _taint(cluster: Cluster, node: str) -> object:
    return cluster.kubectl("taint", "node", node, f"{TAINT}=last-week:NoSchedule", "--overwrite")


FAULTS: dict[str, Fault] = {
    "kubelet stopped": Fault(SILENT, lambda cluster, node: cluster.stop_kubelet(node)),
    "configuration refused": Fault(
        SILENT,
        lambda cluster, node: cluster.configure_kubelet(node, {"systemReserved": {"memory": "900Gi"}}),
    ),
    "machine hangs": Fault(SILENT, lambda cluster, node: cluster.freeze(node)),
    "power cut": Fault(SILENT, lambda cluster, node: cluster.lose(node)),
    "no client CA": Fault(
        READY, lambda cluster, node: cluster.configure_kubelet(node, {"authentication": {"x509": None}})
    ),
    "cordoned": Fault(READY, lambda cluster, node: cluster.kubectl("cordon", node)),
    "forgotten taint": Fault(READY, _taint),
    "too few pods": Fault(READY, lambda cluster, node: cluster.configure_kubelet(node, {"maxPods": _FEW})),
}


@dataclass(frozen=True)
class Evidence:
    """What can be seen of a worker from outside.

    Attributes:
        ready: its condition Ready.
        heartbeat_s: since its lease was renewed.
        kubelet, pod: what it answers at its port, and a pod on it at its own: "ok", "refused", "no answer",
            "no route" or "unauthorized"; "none" where there is no pod.
        taints: those that somebody has set.
        pods: how many it would take.
        reserves_too_much: its configuration reserves more memory than the machine has.
        last_words: the end of its log.
    """

    node: str
    ready: str
    heartbeat_s: float
    kubelet: str
    pod: str
    cordoned: bool
    taints: tuple[str, ...]
    pods: int
    reserves_too_much: bool
    last_words: str = ""

    def __str__(self) -> str:
        marks = [*(["it is cordoned"] if self.cordoned else []), *(f"taint {each}" for each in self.taints)]
        parts = [
            f"Ready is {self.ready}",
            f"last heartbeat {self.heartbeat_s:.0f} s ago",
            f"its kubelet: {self.kubelet}",
            f"its pod: {self.pod}",
            f"room for {self.pods} pods",
        ]
        return f"{self.node}: {', '.join([*parts, *marks])}"


def cause_of(seen: Evidence) -> str:
    """The fault that explains what is seen of a worker; "" where it is well."""
    if seen.kubelet == "unauthorized":
        return "no client CA"
    if seen.kubelet == "ok":
        if seen.cordoned:
            return "cordoned"
        if seen.taints:
            return "forgotten taint"
        return "too few pods" if seen.pods < _USUAL else ""
    if seen.pod == "ok":  # the machine lives, so it is the kubelet; one that keeps ending may not even refuse
        return "configuration refused" if seen.reserves_too_much else "kubelet stopped"
    return "machine hangs" if seen.kubelet == "no answer" else "power cut"


def name_it(seen: Iterable[Evidence]) -> tuple[str, str]:
    """The worker that is ill and its fault; two empty texts where all are well."""
    return next(((each.node, cause) for each in seen if (cause := cause_of(each))), ("", ""))


def look(cluster: Cluster, nodes: Sequence[str] = ()) -> list[Evidence]:
    """Look at workers from outside, at all at once.

    Args:
        nodes: their names; by default all of them.
    """
    names = list(nodes) or [node.name for node in cluster.workers()]
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        return list(pool.map(lambda name: _look(cluster, name), names))


def table(seen: Sequence[Evidence]) -> pd.DataFrame:
    """What is seen of each worker, side by side."""
    rows = {
        each.node: {
            "Ready": each.ready,
            "last heartbeat": f"{each.heartbeat_s:.0f} s ago",
            "its kubelet": each.kubelet,
            "its pod": each.pod,
            "cordoned": "yes" if each.cordoned else "no",
            "taints": ", ".join(each.taints) or "none",
            "room for": f"{each.pods} pods",
            "last words in its log": each.last_words[-110:],
        }
        for each in seen
    }
    return pd.DataFrame(rows)


@dataclass
class Case:
    """A round: one worker is ill. Which one, and what it has, is told when it is named.

    Attributes:
        seen: what could be seen of all workers when the round began.
        named_s: how long it took until somebody said the right thing; None before.
    """

    number: int
    node: str = field(repr=False)
    cause: str = field(repr=False)
    seen: list[Evidence] = field(repr=False)
    began: float = field(default_factory=time.monotonic, repr=False)
    named_s: float | None = None

    def __str__(self) -> str:
        return f"Round {self.number}: one of {', '.join(each.node for each in self.seen)} is ill. Go."

    @property
    def kind(self) -> str:
        """SILENT or READY."""
        return FAULTS[self.cause].kind

    def as_if(self, cause: str) -> Case:
        """The same round, taken for one with another fault."""
        return replace(self, cause=cause)

    def other_node(self) -> str:
        """A worker that is well."""
        return next(each.node for each in self.seen if each.node != self.node)

    def about(self, node: object) -> str:
        """What was seen of a worker, for a hint."""
        return next(
            (str(each) for each in self.seen if each.node == node), f"{node!r} is none of the workers"
        )

    def says(self, node: object, cause: object) -> tuple[bool, bool]:
        """Whether the worker is named, and the cause; the first time that both are, the clock stops."""
        right = node == self.node, str(cause).strip().lower() == self.cause.lower()
        if all(right) and self.named_s is None:
            self.named_s = round(time.monotonic() - self.began, 1)
        return right


def draw(cluster: Cluster, number: int, seed: int, kinds: Sequence[str] = (SILENT, READY)) -> Case:
    """Let a worker fall ill; the seed decides which one and of what, and nothing tells.

    Returns when something can be seen.
    """
    dice = random.Random(seed)
    workers = sorted(node.name for node in cluster.workers())
    node = dice.choice(workers)
    cause = dice.choice([name for name, fault in FAULTS.items() if fault.kind in kinds])
    FAULTS[cause].strike(cluster, node)
    began, seen = time.monotonic(), list[Evidence]()

    def shows() -> bool:
        seen[:] = look(cluster, workers)
        return name_it(seen) == (node, cause)

    with suppress(WaitTimeout):  # what cannot be seen now may be seen later
        wait_for(shows, _SHOWS_S, "it shows", every_s=0.5)
    return Case(number, node, cause, seen, began)


def well(cluster: Cluster, node: str) -> str:
    """What is still wrong with a worker, as far as it can be seen; "" where nothing is."""
    (seen,) = look(cluster, [node])
    return str(seen) if cause_of(seen) or seen.ready != "True" else ""


def tidy(cluster: Cluster) -> None:
    """Take back what `Cluster.repair` leaves: taints that a round has set."""
    for node in cluster.workers():
        if any(taint.startswith(f"{TAINT}=") for taint in node.taints):
            cluster.kubectl("taint", "node", node.name, f"{TAINT}-")


def summary(cases: Sequence[Case], notes: Notes | None = None) -> pd.DataFrame:
    """What it was in each round, and how long it took to say so; kept in the learner's progress.

    Args:
        notes: where it is kept; by default nowhere in a headless run, else in the learner's progress.
    """
    if notes is None and not os.environ.get("LABKIT_HEADLESS"):
        notes = Notes()
    rows = [(case.number, case.node, case.cause, case.named_s) for case in cases]
    for case in cases:
        if notes and case.named_s is not None:
            check = f"02-{ROUNDS[case.number - 1]}-round"
            notes.note("check", check, ok=True, cause=case.cause, diagnosed_s=case.named_s)
    columns = ["round", "worker", "cause", "seconds to diagnosis"]
    return pd.DataFrame(rows, columns=columns).set_index("round")


def _look(cluster: Cluster, name: str) -> Evidence:
    kube = cluster.kube
    node, lease = kube.find("Node", name), kube.find("Lease", name, namespace="kube-node-lease")
    pods = kube.list("Pod", labels="app=echo", fields=f"spec.nodeName={name}")
    doors = [f"/api/v1/nodes/{name}/proxy/healthz"]
    doors += [f"/api/v1/namespaces/default/pods/{dig(pod, 'metadata.name')}:8080/proxy/" for pod in pods[:1]]
    with ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda path: _knock(cluster, path), doors), "none"]
    return Evidence(
        node=name,
        ready=next((c["status"] for c in dig(node, "status.conditions", []) if c["type"] == "Ready"), "?"),
        heartbeat_s=_age_s(dig(lease, "spec.renewTime", "")),
        kubelet=answers[0],
        pod=answers[1],
        cordoned=bool(dig(node, "spec.unschedulable", False)),
        taints=tuple(_foreign(node)),
        pods=int(dig(node, "status.allocatable.pods", 0)),
        reserves_too_much=_reserves_too_much(cluster, name, node),
        last_words=_last_words(cluster, name),
    )


def _knock(cluster: Cluster, path: str) -> str:
    try:
        Kube(cluster.kubeconfig, patience_s=0).request("GET", path, timeout_s=_KNOCK_S)
    except LabkitError as error:
        said = error.message.lower()
        words = {"unauthorized": "unauthorized", "refused": "refused", "no route": "no route"}
        return next((answer for word, answer in words.items() if word in said), "no answer")
    return "ok"


def _foreign(node: Object | None) -> list[str]:
    taints = [taint for taint in dig(node, "spec.taints", []) if not taint["key"].startswith(_OWN)]
    return [f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}" for t in taints]


def _age_s(stamp: str) -> float:
    if not stamp:
        return float("inf")
    return (datetime.now(UTC) - datetime.fromisoformat(stamp.replace("Z", "+00:00"))).total_seconds()


def _reserves_too_much(cluster: Cluster, name: str, node: Object | None) -> bool:
    try:
        reserved = quantity(dig(cluster.kubelet_config(name), "systemReserved.memory", "0"))
    except LabkitError:
        return False
    return reserved > quantity(dig(node, "status.capacity.memory", "0"))


def _last_words(cluster: Cluster, name: str) -> str:
    try:
        return cluster.kubelet_log(name, 1, r"^[EF]\d{4}|rror|invalid")
    except LabkitError as error:
        return error.message
