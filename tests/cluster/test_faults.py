"""Faults that a user or an instructor causes on purpose: what is lost comes back, what was stored stays."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from labkit.cluster.base import Cluster

from .helpers import config_map, deployment, namespace, until

pytestmark = pytest.mark.cluster
CONTROL_PLANE = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "vip",
    "coredns",
    "metrics-server",
]


def component(cluster: Cluster, name: str) -> dict[str, object]:
    """A component's row of `labkit status --json`."""
    rows = cluster.status().components
    found = next(row for row in rows if row.name == name)
    return {"pid": found.pid, "restarts": found.restarts, "state": found.state}


@pytest.mark.parametrize("name", CONTROL_PLANE)
def test_a_killed_component_comes_back_and_nothing_is_lost(cluster: Cluster, name: str) -> None:
    with namespace(cluster, "kill") as space:
        space.apply(config_map("kept", key="value"))
        before = component(cluster, name)
        os.kill(int(str(before["pid"])), signal.SIGKILL)
        until(lambda: component(cluster, name)["restarts"] != before["restarts"], 20, f"{name} is restarted")
        until(
            lambda: cluster.kubectl("get", "--raw=/readyz", check=False) == "ok",
            60,
            "the API server is ready",
        )
        assert space.get("configmap", "kept")["data"] == {"key": "value"}
        assert component(cluster, name)["state"] == "running"


def test_the_cluster_works_after_its_control_plane_was_killed(cluster: Cluster) -> None:
    with namespace(cluster, "after") as space:
        space.apply(deployment("web", 2))
        space.rolled("deployment/web")


def condition(cluster: Cluster, node: str) -> str:
    """Status of a node's Ready condition."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "node", node, "-o", path, check=False)


def test_a_restarted_kubelet_finds_its_pods_running(cluster: Cluster) -> None:
    with namespace(cluster, "adopt") as space:
        space.apply(deployment("web", 4))
        space.rolled("deployment/web")
        node = cluster.nodes()[0].name
        begun = [started(item) for item in space.items("pods", "app=web")]
        cluster.stop_kubelet(node)
        logs = space.items("pods", "app=web")
        assert len(logs) == 4
        cluster.start_kubelet(node)
        until(lambda: condition(cluster, node) == "True", 60, "Ready again")
        time.sleep(3)
        now = space.items("pods", "app=web")
        assert [started(item) for item in now] == begun
        assert {item["status"]["containerStatuses"][0]["restartCount"] for item in now} == {0}


def started(item: dict[str, object]) -> str:
    """When a pod's container was started."""
    status = json.loads(json.dumps(item))["status"]["containerStatuses"][0]
    return str(status["state"]["running"]["startedAt"])


def test_a_frozen_node_is_noticed_emptied_and_taken_back(cluster: Cluster) -> None:
    quick = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 2,
        }
        for key in ("not-ready", "unreachable")
    ]
    node = cluster.nodes()[0].name
    with namespace(cluster, "freeze") as space:
        space.apply(deployment("web", 2, tolerations=quick, nodeSelector={}))
        space.rolled("deployment/web")
        cluster.freeze(node)
        try:
            until(lambda: condition(cluster, node) == "Unknown", 90, "NotReady is noticed", every=1)
            until(
                lambda: elsewhere(space.items("pods", "app=web"), node) == 2,
                60,
                "two pods elsewhere",
                every=1,
            )
        finally:
            cluster.thaw(node)
        until(lambda: condition(cluster, node) == "True", 60, "Ready after it was thawed", every=1)
        until(lambda: len(space.items("pods", "app=web")) == 2, 60, "the old pods are cleaned up", every=1)


def elsewhere(pods: list[dict[str, dict[str, object]]], node: str) -> int:
    """How many pods run on other nodes, ready or not yet."""
    return sum(
        p["spec"].get("nodeName") not in (None, node) and p["status"]["phase"] == "Running" for p in pods
    )


def test_a_lost_machine_comes_back_empty(cluster: Cluster) -> None:
    node = cluster.nodes()[-1].name
    with namespace(cluster, "lose") as space:
        space.apply(deployment("web", 4))
        space.rolled("deployment/web")
        cluster.lose(node)
        cluster.restore(node)
        until(lambda: condition(cluster, node) == "True", 60, "Ready again", every=1)
        until(lambda: all_ready(space.items("pods", "app=web"), 4), 90, "four Ready pods", every=1)


def all_ready(pods: list[dict[str, dict[str, object]]], count: int) -> bool:
    """Whether `count` pods are Ready and no other is left."""
    ready = [
        any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))  # type: ignore[attr-defined]
        for p in pods
    ]
    return len(ready) == count and all(ready)
