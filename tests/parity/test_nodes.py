"""Nodes: scheduling, draining, failing, joining."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labkit.cluster import Cluster
from labkit.cluster.join import CLUSTER_FOUND, STEPS
from labkit.errors import ClusterError
from tests.cluster.helpers import Namespace, service, until
from tests.parity.behaviours import behaviour
from tests.parity.conftest import OPTIONS
from tests.parity.pods import SLEEP, python_deployment, python_pod, server_deployment
from tests.parity.test_network import ask


def ready(cluster: Cluster, name: str) -> str:
    """Status of a node's condition Ready."""
    return next(node.ready for node in cluster.nodes() if node.name == name)


def homes(space: Namespace, selector: str) -> list[str]:
    """Nodes of the pods that are Running and not on their way out."""
    pods = [p for p in space.items("pods", selector) if "deletionTimestamp" not in p["metadata"]]
    return [p["spec"].get("nodeName", "") for p in pods if p["status"].get("phase") == "Running"]


@behaviour("The scheduler heeds node selectors, taints and what nodes have to give")
def test_scheduling(space: Namespace) -> None:
    name = space.cluster.workers()[0].name
    space.apply(python_pod("here", nodeSelector={"kubernetes.io/hostname": name}))
    space.ready("here")
    assert space.get("pod", "here")["spec"]["nodeName"] == name
    space.apply(python_pod("large", container={"resources": {"requests": {"memory": "6Gi"}}}))
    until(lambda: "Insufficient memory" in space.kubectl("get", "events"), 30, "it does not fit")
    assert not space.get("pod", "large")["spec"].get("nodeName")


@behaviour("`kubectl drain` moves a node's pods elsewhere, and waits for a PodDisruptionBudget")
def test_drain(space: Namespace) -> None:
    space.apply(server_deployment("web", 4))
    space.rolled("deployment/web")
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    space.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web"},
            "spec": budget,
        }
    )
    name = homes(space, "app=web")[0]
    try:
        space.cluster.kubectl(
            "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"
        )
        space.rolled("deployment/web")
        assert name not in homes(space, "app=web")
    finally:
        space.cluster.kubectl("uncordon", name)


@pytest.fixture
def victim(cluster: Cluster) -> Iterator[str]:
    """A worker that a test breaks, whole again afterwards."""
    name = cluster.workers()[-1].name
    yield name
    until(lambda: ready(cluster, name) == "True", 90, f"{name} Ready again")


@behaviour("A lost node is noticed; its pods are evicted and replaced; it comes back")
def test_node_loss(space: Namespace, victim: str) -> None:
    space.apply(python_deployment("spread", 4, SLEEP))
    space.rolled("deployment/spread")
    until(lambda: victim in homes(space, "app=spread"), 30, "a pod on the node that will be lost")
    space.cluster.lose(victim)
    try:
        until(lambda: ready(space.cluster, victim) == "Unknown", 60, "the node is Unknown", every=1)
        others = {node.name for node in space.cluster.workers()} - {victim}

        def replaced() -> bool:
            return sum(home in others for home in homes(space, "app=spread")) == 4

        until(replaced, 90, "four pods on other nodes", every=1)
    finally:
        space.cluster.restore(victim)


@behaviour("While a kubelet is stopped its node counts as lost, and its pods go on serving")
def test_kubelet_stops(space: Namespace, victim: str) -> None:
    tolerant = [
        {"key": key, "operator": "Exists"}
        for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    ]
    space.apply(server_deployment("web", 1, nodeName=victim, tolerations=tolerant), service("web", 80, 8080))
    space.rolled("deployment/web")
    (pod,) = space.items("pods", "app=web")
    inside = python_pod("client", nodeName=next(n.name for n in space.cluster.workers() if n.name != victim))
    space.apply(inside)
    space.ready("client")
    space.cluster.stop_kubelet(victim)
    try:
        until(lambda: ready(space.cluster, victim) != "True", 60, "the node is not Ready", every=1)
        url = f"http://{pod['status']['podIP']}:8080/"
        from tests.parity.pods import ASK

        assert pod["metadata"]["name"] in space.exec("client", "python", "-c", ASK, url)
    finally:
        space.cluster.start_kubelet(victim)


@behaviour("A hung node is noticed, and goes on where it was when it is let go")
def test_freeze(space: Namespace, victim: str) -> None:
    space.cluster.freeze(victim)
    try:
        until(lambda: ready(space.cluster, victim) == "Unknown", 60, "the node is Unknown", every=1)
    finally:
        space.cluster.thaw(victim)


@behaviour("A worker joins by token, request, approval and certificate, takes pods, and leaves")
def test_join(space: Namespace) -> None:
    cluster = space.cluster
    join = cluster.add_worker("guest", labels={"zone": "b"}, taints=["dedicated=lab:NoSchedule"], limit_s=180)
    try:
        assert tuple(step.name for step in join) == STEPS
        node = next(node for node in cluster.workers() if node.name == "guest")
        assert node.labels["zone"] == "b" and "dedicated=lab:NoSchedule" in node.taints
        tolerant = [{"key": "dedicated", "operator": "Exists"}]
        space.apply(
            server_deployment("web", 1, nodeSelector={"zone": "b"}, tolerations=tolerant),
            service("web", 80, 8080),
        )
        space.rolled("deployment/web")
        assert "web-" in ask(cluster.url("web", space.name))
    finally:
        cluster.remove_worker("guest")
    assert "guest" not in [node.name for node in cluster.nodes()]


@behaviour("A join can wait until a person approves its certificate request")
def test_join_by_hand(space: Namespace) -> None:
    cluster = space.cluster
    join = cluster.add_worker("by-hand", approve=False, limit_s=180)
    try:
        asked = next(step for step in join if step.name == "CSR pending")
        assert asked.object
        name = asked.object["metadata"]["name"]
        assert cluster.kubectl("get", "csr", name, "--no-headers").split()[-1] == "Pending"
        cluster.kubectl("certificate", "approve", name)
        assert [step.name for step in join] == list(STEPS[3:])
    finally:
        cluster.remove_worker("by-hand")


@behaviour("A worker that finds its cluster by itself is refused for a wrong hash or an expired token")
def test_discovery(space: Namespace) -> None:
    cluster = space.cluster
    given = cluster.join_token()
    with pytest.raises(ClusterError, match="none of the public keys"):
        cluster.add_worker(
            "seeker", token=given.token, ca_cert_hash="sha256:" + "ab" * 32, limit_s=180
        ).wait()
    short = cluster.join_token(2)
    secret = f"bootstrap-token-{short.id}"
    until(lambda: cluster.kube.find("Secret", secret, namespace="kube-system") is None, 30, "it has expired")
    with pytest.raises(ClusterError, match="could not find a JWS signature"):
        cluster.add_worker("seeker", token=short.token, limit_s=180).wait()
    assert f'"{short.id}"' in cluster.kubelet_log("seeker", 500, "token ID")
    join = cluster.add_worker("seeker", token=given.token, ca_cert_hash=given.ca_cert_hash, limit_s=180)
    try:
        assert tuple(step.name for step in join) == (CLUSTER_FOUND, *STEPS[1:])
        assert given.token.partition(".")[2] not in cluster.kubelet_log("seeker", 5000)
    finally:
        cluster.remove_worker("seeker")


@behaviour("A kubelet that refuses its configuration stays down and says why, until it is repaired")
def test_configuration(space: Namespace, victim: str) -> None:
    cluster = space.cluster
    joined_with = cluster.kubelet_config(victim)
    cluster.configure_kubelet(victim, {"systemReserved": {"memory": "900Gi"}})
    try:
        until(
            lambda: "invalid Node Allocatable" in cluster.kubelet_log(victim, 50), 60, "it says why", every=1
        )
    finally:
        cluster.repair(victim)
    assert cluster.kubelet_config(victim) == joined_with


@behaviour("The controller manager can be told to call a silent node lost sooner")
def test_node_monitor(cluster: Cluster) -> None:
    usual = (OPTIONS["node_monitor_grace_s"], OPTIONS["node_monitor_period_s"])
    cluster.tune_node_monitor(19, 1)
    try:
        name = cluster.workers()[-1].name
        begin = time.monotonic()
        cluster.freeze(name)
        try:
            until(lambda: ready(cluster, name) == "Unknown", 60, "the node is Unknown", every=0.5)
            assert time.monotonic() - begin > 8, "its last lease was at most 10 s old"
        finally:
            cluster.thaw(name)
            until(lambda: ready(cluster, name) == "True", 60, "the node is Ready")
    finally:
        cluster.tune_node_monitor(*usual)
