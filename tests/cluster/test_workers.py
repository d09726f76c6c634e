"""Workers come and go: each step of a join, approval by hand, taints and labels, removal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.join import STEPS
from labkit.cluster.kubelet import has_certificate
from labkit.cluster.phases import silent
from labkit.cluster.processes import node_processes
from labkit.errors import ClusterError, ConfigError, WaitTimeout

from .helpers import deployment, namespace, until

pytestmark = pytest.mark.cluster


def test_a_third_worker_joins_step_by_step(cluster: EmbeddedCluster) -> None:
    before = len(cluster.nodes())
    join = cluster.add_worker(labels={"zone": "b"}, taints=["dedicated=lab:NoSchedule"], memory="2Gi")
    try:
        steps = list(join)
        assert tuple(step.name for step in steps) == STEPS
        times = [step.t_seconds for step in steps]
        assert times == sorted(times)
        by_name = {step.name: step for step in steps}
        secret = by_name["token created"].object
        assert secret and secret["type"] == "bootstrap.kubernetes.io/token"
        request = by_name["CSR pending"].object
        assert request and request["spec"]["username"].startswith("system:bootstrap:")
        assert "status" not in request or "certificate" not in request["status"]
        assert "controller manager" in by_name["CSR approved"].text
        issued = by_name["certificate issued"].object
        assert issued and issued["status"]["certificate"]
        assert len(cluster.nodes()) == before + 1
        node = next(n for n in cluster.nodes() if n.name == join.node)
        assert node.labels["zone"] == "b"
        assert "dedicated=lab:NoSchedule" in node.taints
        assert node.memory_bytes < 2 << 30
        assert not [
            step
            for step in steps
            if secret["stringData"]["token-id"] + "." in step.text and "…" not in step.text
        ]
    finally:
        cluster.remove_worker(join.node)
    assert len(cluster.nodes()) == before


def test_a_join_can_wait_for_a_person(cluster: EmbeddedCluster) -> None:
    join = cluster.add_worker("by-hand", approve=False)
    try:
        for step in join:
            if step.name == "CSR pending":
                break
        assert step.object
        name = step.object["metadata"]["name"]
        assert cluster.kubectl("get", "csr", name, "--no-headers").split()[-1] == "Pending"
        assert not has_certificate(cluster.directory, "by-hand")
        cluster.kubectl("certificate", "approve", name)
        rest = [step.name for step in join]
        assert rest == list(STEPS[3:])
        assert has_certificate(cluster.directory, "by-hand")
    finally:
        cluster.remove_worker("by-hand")


def test_a_join_nobody_approves_says_what_it_waits_for(cluster: EmbeddedCluster) -> None:
    join = cluster.add_worker("forgotten", approve=False, limit_s=8)
    try:
        with pytest.raises(WaitTimeout, match="'CSR approved'") as caught:
            join.wait()
        assert "kubectl certificate approve" in caught.value.hint
    finally:
        cluster.remove_worker("forgotten")


def test_a_denied_request_ends_the_join(cluster: EmbeddedCluster) -> None:
    join = cluster.add_worker("unwanted", approve=False)
    try:
        for step in join:
            if step.name == "CSR pending":
                break
        assert step.object
        cluster.kubectl("certificate", "deny", step.object["metadata"]["name"])
        with pytest.raises(ClusterError, match="denied"):
            join.wait()
    finally:
        cluster.remove_worker("unwanted")


def test_a_removed_workers_pods_move_and_nothing_of_it_stays(cluster: EmbeddedCluster) -> None:
    cluster.add_worker("leaving").wait()
    with namespace(cluster, "leave") as space:
        space.apply(deployment("web", 6))
        space.rolled("deployment/web")
        assert any(p["spec"]["nodeName"] == "leaving" for p in space.items("pods"))
        cluster.remove_worker("leaving", drain=True)
        assert node_processes(cluster.directory, "leaving") == set()
        assert not cluster.directory.node("leaving").exists()
        assert "leaving" not in cluster.kubectl("get", "nodes", "-o", "name")
        until(lambda: _all_elsewhere(space.items("pods")), 60, "six pods on other nodes")


def _all_elsewhere(pods: list[dict[str, dict[str, object]]]) -> bool:
    running = [
        p for p in pods if p["status"].get("phase") == "Running" and p["spec"].get("nodeName") != "leaving"
    ]
    return len(running) == len(pods) == 6


def test_wrong_workers_are_refused_before_anything_starts(cluster: EmbeddedCluster) -> None:
    before = cluster.directory.load()
    with pytest.raises(ClusterError, match="already"):
        cluster.add_worker("worker-1")
    with pytest.raises(ConfigError, match="taint"):
        cluster.add_worker("odd", taints=["nonsense"])
    with pytest.raises(ConfigError, match="less than 256Mi"):
        cluster.add_worker("small", memory="10Mi")
    with pytest.raises(ConfigError, match="name"):
        cluster.add_worker("Not A Name")
    with pytest.raises(ClusterError, match="no node"):
        cluster.remove_worker("nobody")
    with pytest.raises(ClusterError, match="no node"):
        cluster.stop_kubelet("nobody")
    assert cluster.directory.load() == before


def test_a_lost_worker_stays_lost_until_it_is_restored(cluster: EmbeddedCluster) -> None:
    cluster.add_worker("unlucky").wait()
    try:
        cluster.lose("unlucky")
        assert node_processes(cluster.directory, "unlucky") == set()
        EmbeddedCluster.up(cluster.name, silent)
        states = {c.name: c.state for c in cluster.status().components}
        assert states["node-unlucky"] == "stopped"
        cluster.restore("unlucky")
        ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        until(lambda: cluster.kubectl("get", "node", "unlucky", "-o", ready) == "True", 60, "Ready again")
    finally:
        cluster.remove_worker("unlucky")


def test_up_completes_a_join_that_was_cut_off(cluster: EmbeddedCluster) -> None:
    killed_in_mid_join = (
        "import os, sys\n"
        "from labkit.cluster.providers import open_cluster\n"
        "for step in open_cluster(sys.argv[1]).add_worker('late', approve=False):\n"
        "    if step.name == 'CSR pending': os._exit(9)\n"
    )
    argv = [sys.executable, "-c", killed_in_mid_join, cluster.name]
    assert subprocess.run(argv, timeout=60).returncode == 9
    try:
        assert "late" not in [node.name for node in cluster.nodes()]
        EmbeddedCluster.up(cluster.name, silent)
        assert {node.name: node.ready for node in cluster.nodes()}["late"] == "True"
    finally:
        cluster.remove_worker("late")


def test_status_has_everything_a_script_needs(cluster: EmbeddedCluster) -> None:
    argv = [sys.executable, "-m", "labkit", "status", cluster.name, "--json"]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)[0]
    assert found["state"] == "running"
    assert {c["name"] for c in found["components"]} >= {"etcd", "kube-apiserver", "node-worker-1"}
    assert all(c["memory_bytes"] > 5_000_000 for c in found["components"])
    assert found["memory_bytes"] == sum(c["memory_bytes"] for c in found["components"])
    assert found["urls"]["api"].startswith("https://127.")
