"""Looking after nodes: joins that must fail, configurations that break a kubelet, memory pressure, repair from any state."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.join import CLUSTER_FOUND, STEPS
from labkit.errors import ClusterError, ConfigError, KubeError
from labkit.kube import Kube, dig
from labkit.record.memory import node_memory

from .helpers import container, namespace, pod, until

pytestmark = pytest.mark.cluster
NAME = "careful"


@pytest.fixture(scope="module")
def node(cluster: EmbeddedCluster) -> Iterator[str]:
    """A worker of its own, which the tests break and mend."""
    cluster.add_worker(NAME).wait()
    yield NAME
    cluster.remove_worker(NAME)


def kubelet_says(cluster: EmbeddedCluster, name: str) -> str:
    impatient = Kube(cluster.kubeconfig, patience_s=0)
    try:
        return str(impatient.request("GET", f"/api/v1/nodes/{name}/proxy/healthz", timeout_s=5))
    except KubeError as error:
        return error.message


def test_a_worker_finds_its_cluster_by_token_and_hash(cluster: EmbeddedCluster) -> None:
    given = cluster.join_token()
    steps = cluster.add_worker("finder", token=given.token, ca_cert_hash=given.ca_cert_hash).wait()
    try:
        assert tuple(step.name for step in steps) == (CLUSTER_FOUND, *STEPS[1:])
        said = "".join(map(str, steps)) + cluster.kubelet_log("finder", 500)
        assert given.token.partition(".")[2] not in said
    finally:
        cluster.remove_worker("finder")


def test_wrong_hash_and_expired_token_are_refused_with_kubeadms_words(cluster: EmbeddedCluster) -> None:
    before = cluster.directory.load()
    given = cluster.join_token()
    with pytest.raises(ClusterError, match="none of the public keys"):
        cluster.add_worker("stray", token=given.token, ca_cert_hash="sha256:" + "ab" * 32).wait()
    short = cluster.join_token(2)
    secret = f"bootstrap-token-{short.id}"
    gone = lambda: cluster.kube.find("Secret", secret, namespace="kube-system") is None  # noqa: E731
    until(gone, 20, "the token cleaner removes it")
    with pytest.raises(ClusterError, match="could not find a JWS signature") as caught:
        cluster.add_worker("stray", token=short.token).wait()
    assert short.token.partition(".")[2] not in str(caught.value)
    assert short.id in cluster.kubelet_log("stray", 20, "JWS")
    assert cluster.directory.load() == before, "nothing of it stays, so that the name can be used again"
    with pytest.raises(ConfigError, match="no bootstrap token"):
        cluster.add_worker("stray", token="nonsense")


def test_a_configuration_that_the_kubelet_refuses(cluster: EmbeddedCluster, node: str) -> None:
    cluster.configure_kubelet(node, {"systemReserved": {"memory": "900Gi"}})
    until(lambda: "is reserved, the node has" in cluster.kubelet_log(node, 5), 30, "its log says why")
    assert kubelet_says(cluster, node) != "ok"
    cluster.repair(node)
    assert "systemReserved" not in cluster.kubelet_config(node)
    assert kubelet_says(cluster, node) == "ok"


def test_changes_do_not_add_up(cluster: EmbeddedCluster, node: str) -> None:
    joined_with = cluster.kubelet_config(node)
    cluster.configure_kubelet(node, {"maxPods": 7})
    cluster.configure_kubelet(node, {"systemReserved": {"memory": "64Mi"}})
    assert cluster.kubelet_config(node) == {**joined_with, "systemReserved": {"memory": "64Mi"}}
    cluster.repair(node)
    assert cluster.kubelet_config(node) == joined_with


def test_ready_but_deaf(cluster: EmbeddedCluster, node: str) -> None:
    cluster.configure_kubelet(node, {"authentication": {"x509": None}})
    until(lambda: "Unauthorized" in kubelet_says(cluster, node), 30, "the kubelet refuses the API server")
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    assert cluster.kubectl("get", "node", node, "-o", ready) == "True"
    cluster.repair(node)
    assert kubelet_says(cluster, node) == "ok"


@pytest.mark.parametrize("fault", ["stop_kubelet", "freeze", "lose"])
def test_repair_from_any_state(cluster: EmbeddedCluster, node: str, fault: str) -> None:
    getattr(cluster, fault)(node)
    cluster.kubectl("cordon", node)
    cluster.repair(node)
    found = cluster.kube.get("Node", node)
    assert not dig(found, "spec.unschedulable", False) and kubelet_says(cluster, node) == "ok"


def test_memory_pressure_evicts_who_uses_more_than_requested(cluster: EmbeddedCluster, node: str) -> None:
    time.sleep(2)  # the kubelet's first measurement
    memory = node_memory(cluster, node)
    assert 0 < memory.used_mib < 500 and memory.capacity_mib > memory.allocatable_mib
    changes = {
        "evictionHard": {"memory.available": f"{int(memory.available_mib) - 80}Mi"},
        "evictionPressureTransitionPeriod": "5s",
    }
    hoard = "import time; b = b'x' * (160 << 20); time.sleep(600)"
    with namespace(cluster, "hungry") as space:
        cluster.configure_kubelet(node, changes)
        until(lambda: kubelet_says(cluster, node) == "ok", 30, "the kubelet is back")
        there = {"nodeName": node}
        space.apply(pod("modest", **there, container={"resources": {"requests": {"memory": "60Mi"}}}))
        space.ready("modest")
        space.apply(
            {
                **pod("hungry", **there),
                "spec": {**there, "containers": [container("m", "python3", "-c", hoard)]},
            }
        )
        status = lambda: space.get("pod", "hungry")["status"]  # noqa: E731
        until(lambda: status().get("reason") == "Evicted", 60, "hungry is evicted")
        assert "low on resource: memory" in status()["message"]
        assert space.get("pod", "modest")["status"]["phase"] == "Running"
        events = lambda: cluster.kube.events(cluster.kube.get("Node", node))  # noqa: E731
        told = lambda: any(event["reason"] == "NodeHasInsufficientMemory" for event in events())  # noqa: E731
        until(told, 30, "the kubelet tells of it with its next status")
    cluster.repair(node)


def test_the_node_monitor_is_tuned_and_put_back(cluster: EmbeddedCluster) -> None:
    def flags() -> str:
        state = cluster.directory.load()
        assert state
        options = state.options
        return f"{options.node_monitor_grace_s} {options.node_monitor_period_s}"

    before = flags()
    cluster.tune_node_monitor(20, 2)
    assert flags() == "20 2"
    with pytest.raises(ConfigError, match="node_monitor_grace_s"):
        cluster.tune_node_monitor(0)
    cluster.tune_node_monitor(*map(int, before.split()))
    assert flags() == before
