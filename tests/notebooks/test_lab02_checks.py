"""The checks of labs 02 and 02b on a cluster made up for it: what they must accept, what not, and the hint they give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from labkit.checks import lab01, lab02, lab02b
from labkit.errors import ClusterError
from labkit.labs.orders import Order
from labkit.record import Recording

ILL = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}


class Made:
    """Stands where a Cluster would: objects by (kind, name), and a kubelet's log."""

    kubeconfig = Path("/nowhere")

    def __init__(self, *objects: dict[str, Any], log: list[str] | None = None) -> None:
        self.objects, self.log = objects, log
        self.kube = self

    def find(self, kind: str, name: str, **_: object) -> dict[str, Any] | None:
        return next((o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name)), None)

    def list(self, kind: str, **_: object) -> list[dict[str, Any]]:
        return [one for one in self.objects if one["kind"] == kind]

    def kubelet_log(self, name: str, lines: int = 20) -> str:
        if self.log is None:
            raise ClusterError(f"The kubelet of {name} has written no log.")
        return "\n".join(self.log[-lines:])


def node(
    name: str = "worker-1", ready: str = "True", taints: tuple[dict[str, str], ...] = (), **spec: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    return {"kind": "Node", "metadata": {"name": name}, "spec": {"taints": list(taints), **spec},
            "status": {"conditions": conditions}}  # fmt: skip


def pod(name: str, on: str, ready: bool = True, **meta: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "uid": name, **meta}, "spec": {"nodeName": on},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}}  # fmt: skip


def failed(findings: Any) -> list[str]:
    return [f"{finding.text}: {finding.hint}" for finding in findings if not finding.ok]


JWS = 'join: could not find a JWS signature in the cluster-info ConfigMap for token ID "abcdef"'
PINNED = 'join: cluster CA is invalid: none of the public keys "sha256:12" are pinned'


def test_a_refusal_is_read_from_the_log() -> None:
    tried = 'Waiting for the cluster-info ConfigMap to receive a JWS signature for token ID "abcdef"'
    assert failed(lab01.token_refused(Made(log=[tried, JWS]), "worker-3", "abcdef")) == []
    order = Order("10.0.0.1:6443", "abcdef.0123456789abcdef", "sha256:00", "hash")
    assert failed(lab01.order_refused(Made(log=[tried, PINNED]), "worker-3", order)) == []
    assert "its last words" in failed(lab01.order_refused(Made(log=[tried, JWS]), "worker-3", order))[0]
    assert "no log" in failed(lab01.token_refused(Made(), "worker-3", "abcdef"))[0]
    other = failed(lab01.token_refused(Made(log=[JWS]), "worker-3", "fedcba"))
    assert "does not name it" in other[0], "an earlier refusal is none of this token"
    still = {"kind": "Secret", "metadata": {"name": "bootstrap-token-abcdef"}}
    assert "still there" in failed(lab01.token_refused(Made(still, log=[JWS]), "worker-3", "abcdef"))[0]


def test_unknown_means_unknown() -> None:
    good = Made(node("worker-1", "Unknown", (ILL,)))
    assert failed(lab02.both_unknown(good, ["worker-1"])) == []
    [said] = failed(lab02.both_unknown(Made(node("worker-1", "False", (ILL,))), ["worker-1"]))
    assert "its condition Ready is False" in said


def test_well_is_ready_without_taints_and_open() -> None:
    assert failed(lab02.third_worker_joined(Made(node("worker-3")))) == []
    for ill, word in ((node("worker-3", taints=(ILL,)), "unreachable"), (node("worker-3", unschedulable=True), "cordoned"),
                      (node("worker-3", "Unknown"), "Unknown"), (node("worker-1"), "no Node worker-3")):  # fmt: skip
        assert word in failed(lab02.third_worker_joined(Made(ill)))[0]


def test_another_pod_is_not_the_same_pod() -> None:
    before = {"worker-1": pod("echo-1", "worker-1")}
    assert failed(lab02.both_well(Made(node(), pod("echo-1", "worker-1")), ["worker-1"], before)) == []
    new = pod("echo-1", "worker-1") | {"metadata": {"name": "echo-1", "uid": "another"}}
    assert "is the same" in failed(lab02.both_well(Made(node(), new), ["worker-1"], before))[0]


def test_replaced_counts_only_ready_pods_elsewhere() -> None:
    lost = node("worker-3", "Unknown")
    pods = [pod(f"web-{n}", "worker-1") for n in range(3)]
    assert failed(lab02b.replaced(Made(lost, *pods), "worker-3", 3)) == []
    on_it = Made(lost, *pods[:2], pod("web-9", "worker-3"))
    assert "3 pods are ready elsewhere" in failed(lab02b.replaced(on_it, "worker-3", 3))[0]
    ending = Made(lost, *pods[:2], pod("web-9", "worker-1", deletionTimestamp="now"))
    assert failed(lab02b.replaced(ending, "worker-3", 3))


def test_a_dip_below_the_budget_is_seen() -> None:
    empty = Made(node("worker-1", unschedulable=True), *[pod(f"web-{n}", "worker-2") for n in range(4)])

    def recorder(*counts: int) -> Any:
        rows = [{"t_seconds": float(n), "kind": "Deployment", "namespace": "default", "name": "web",
                 "what": "ready_replicas", "before": None, "after": count} for n, count in enumerate(counts)]  # fmt: skip
        return SimpleNamespace(recording=lambda: Recording(0.0, 1.0, transitions=pd.DataFrame(rows)))

    assert failed(lab02b.drained(empty, "worker-1", recorder(4, 3, 4), 3)) == []
    assert "at one moment 2 were" in failed(lab02b.drained(empty, "worker-1", recorder(4, 2, 4), 3))[0]
