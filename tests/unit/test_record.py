"""The recorder against a scripted API server: samples, transitions, gaps, an end that comes at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import ConfigError
from labkit.kube import Event, Kube
from labkit.record import Recorder, Recording
from labkit.record.facts import deployment, hpa, node, pod
from labkit.record.recorder import _ANSWER_S

from .api_server import Server, events, kubeconfig

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u1",
        "resourceVersion": "1",
        "labels": {"app": "web"},
        "ownerReferences": [
            {"kind": "Node", "name": "worker-1"},
            {"kind": "ReplicaSet", "name": "web-7f4", "controller": True},
        ],
    },
    "spec": {"nodeName": "worker-1", "containers": [{"name": "c", "image": "shop/web:v1"}]},
    "status": {
        "phase": "Pending",
        "containerStatuses": [{"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}],
    },
}
READY = {
    **POD,
    "metadata": {**POD["metadata"], "resourceVersion": "2"},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"restartCount": 3}],
    },
}
RESOURCES = {
    "/api/v1": [("pods", "Pod", True), ("nodes", "Node", False)],
    "/apis/coordination.k8s.io/v1": [("leases", "Lease", True)],
    "/apis/apps/v1": [("deployments", "Deployment", True), ("replicasets", "ReplicaSet", True)],
    "/apis/autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler", True)],
}
METRICS = "/apis/metrics.k8s.io/v1beta1"


def usage(stamp: str, cpu: str) -> dict[str, Any]:
    containers = [
        {"name": "c", "usage": {"cpu": cpu, "memory": "1Mi"}},
        {"name": "d", "usage": {"cpu": "1m", "memory": "0"}},
    ]
    item = {
        "metadata": {"name": "web-1", "namespace": "shop"},
        "timestamp": stamp,
        "window": "1m1.5s",
        "containers": containers,
    }
    return {"items": [item]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    groups = [path.removeprefix("/apis/").split("/") for path in RESOURCES if path != "/api/v1"]
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in groups]
    made.answers["/apis"] = [
        (200, {"kind": "APIGroupList", "groups": [
            {"name": group, "versions": [entry], "preferredVersion": entry}
            for (group, _), entry in zip(groups, versions, strict=True)
        ]})
    ]  # fmt: skip
    for path, kinds in RESOURCES.items():
        entries = [
            {"name": name, "kind": kind, "namespaced": inside, "singularName": kind.lower(), "verbs": []}
            for name, kind, inside in kinds
        ]
        made.answers[path] = [(200, {"kind": "APIResourceList", "resources": entries})]
    empty = {"metadata": {"resourceVersion": "1"}, "items": []}
    for path in (
        "/api/v1/nodes",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
        "/apis/apps/v1/namespaces/shop/deployments",
        "/apis/apps/v1/namespaces/shop/replicasets",
        "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers",
    ):
        made.answers[path] = [(200, {**empty, "kind": "XList", "apiVersion": "v1"}), events(then="stay")]
    made.answers[f"{METRICS}/nodes"] = [(404, {"message": "no metrics yet"})]
    made.answers[f"{METRICS}/namespaces/shop/pods"] = [(200, usage("2024-01-01T00:00:00Z", "250m"))]
    yield made
    made.http.shutdown()
    made.http.server_close()


def wait_until(true: Callable[[], bool], limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()


def test_samples_transitions_metrics_and_gaps(server: Server, tmp_path: Path) -> None:
    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [POD]}
    server.answers["/api/v1/namespaces/shop/pods"] = [
        (200, listed),
        events(("MODIFIED", READY), ("DELETED", READY), ("ADDED", READY), then="stay"),
    ]
    probes = {"good": lambda: 42, "bad": lambda: 1 / 0}
    kube = Kube(kubeconfig(tmp_path, server.port))
    with Recorder(kube, namespaces=["shop"], interval_s=0.2, probes=probes) as recorder:
        wait_until(lambda: len(recorder.recording().pods) >= 3)
        assert recorder.now()["pods"]["shop", "web-1"]["ready"] is True
        begin = time.monotonic()
        recorder.stop()
    assert time.monotonic() - begin < 2, "stops at once although watches wait"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("labkit-record")]
    found = recorder.recording()
    assert found.pods.iloc[-1].to_dict() | {"t_seconds": 0} == {
        "t_seconds": 0, "namespace": "shop", "name": "web-1", "node": "worker-1", "phase": "Running",
        "ready": True, "terminating": False, "restarts": 3, "reason": "",
        "image": "shop/web:v1", "app": "web", "owner": "ReplicaSet/web-7f4",
    }  # fmt: skip
    changes = found.transitions[["what", "before", "after"]].values.tolist()
    assert changes[0] == ["exists", False, True] and ["phase", None, "Pending"] in changes
    assert ["ready", False, True] in changes and ["exists", True, False] in changes, (
        "a state between two samples"
    )
    assert found.transitions["t_seconds"].is_monotonic_increasing
    [measured] = found.usage.to_dict("records")
    assert (measured["cpu_millicores"], measured["memory_bytes"], measured["window_s"]) == (
        251,
        1024**2,
        61.5,
    )
    assert set(found.gaps["source"]) == {"node_usage"} and "no metrics yet" in found.gaps["error"].iloc[0]
    assert found.node_usage.empty
    good, bad = (found.probes[found.probes["name"] == name] for name in ("good", "bad"))
    assert (
        (good["value"] == 42).all() and bad["value"].isna().all() and "ZeroDivision" in bad["error"].iloc[0]
    )


def test_a_server_that_goes_away_leaves_gaps_and_no_invented_rows(server: Server, tmp_path: Path) -> None:
    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [POD]}
    down = (503, {"message": "shutting down"})
    server.answers["/api/v1/namespaces/shop/pods"] = [(200, listed), events(), down]
    with Recorder(Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2) as recorder:
        wait_until(lambda: "pods" in set(recorder.recording().gaps["source"]))
        rows = len(recorder.recording().pods)
        time.sleep(0.8)
        assert len(recorder.recording().pods) == rows
        server.answers["/api/v1/namespaces/shop/pods"] = [(200, listed), events(then="stay")]
        wait_until(lambda: len(recorder.recording().pods) > rows)


def hanging(server: Server, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on the server answers nothing until the event is set: connections are taken and watches are open."""
    thaw, answer = threading.Event(), server.reply

    def reply(handler: BaseHTTPRequestHandler) -> None:
        thaw.wait(30)
        answer(handler)

    monkeypatch.setattr(server, "reply", reply)
    return thaw


def test_a_server_that_hangs_leaves_gaps_and_no_invented_rows(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [READY]}
    server.answers["/api/v1/namespaces/shop/pods"] = [(200, listed), events(then="stay")]
    with Recorder(Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2) as recorder:
        wait_until(lambda: len(recorder.recording().pods) >= 3)
        thaw = hanging(server, monkeypatch)
        begin = recorder.t_seconds

        def silent() -> int:
            gaps = recorder.recording().gaps
            return int((gaps["source"].eq("pods") & (gaps["t_seconds"] > begin)).sum())

        wait_until(lambda: silent() >= 5, 30)
        end = recorder.t_seconds
        thaw.set()
        rows = len(recorder.recording().pods)
        wait_until(lambda: len(recorder.recording().pods) > rows, 20)
    kept = recorder.recording()
    hung = kept.pods["t_seconds"].between(begin + 0.3, end - _ANSWER_S)
    assert not hung.any(), "nobody knows what was there"
    gaps = kept.gaps[kept.gaps["source"] == "pods"]
    assert gaps["t_seconds"].between(begin, end).sum() >= 3
    assert gaps["error"].str.contains("did not answer|not connected").all()


def test_metrics_that_hang_do_not_stretch_the_interval(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [READY]}
    server.answers["/api/v1/namespaces/shop/pods"] = [(200, listed), events(then="stay")]
    answer = server.reply
    free = threading.Event()
    monkeypatch.setattr(
        server, "reply", lambda handler: (METRICS in handler.path and free.wait(30), answer(handler))
    )
    with Recorder(Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2) as recorder:
        wait_until(lambda: "usage" in set(recorder.recording().gaps["source"]), 20)
        kept, now = recorder.recording(), recorder.t_seconds
        free.set()
    assert now > 2, "both metrics were waited for"
    assert len(kept.pods) > 2 * len(kept.gaps[kept.gaps["source"] == "usage"]) + 3


def test_a_thread_that_fails_is_a_gap_and_its_table_is_not_the_present(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [POD]}
    server.answers["/api/v1/namespaces/shop/pods"] = [(200, listed), events(("MODIFIED", READY), then="stay")]
    change = Recorder._change

    def fail(recorder: Recorder, table: str, kind: str, event: Event) -> None:
        if event.type == "MODIFIED":
            raise ZeroDivisionError("of our own")
        change(recorder, table, kind, event)

    monkeypatch.setattr(Recorder, "_change", fail)
    with Recorder(Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2) as recorder:
        wait_until(lambda: (recorder.recording().gaps["source"] == "pods").sum() >= 3)
        rows = len(recorder.recording().pods)
        time.sleep(0.6)
        assert len(recorder.recording().pods) == rows
    gaps = recorder.recording().gaps
    assert gaps.loc[gaps["source"] == "pods", "error"].str.contains("ZeroDivisionError: of our own").all()


def test_recordings_are_saved_and_loaded(server: Server, tmp_path: Path) -> None:
    server.answers["/api/v1/namespaces/shop/pods"] = [
        (200, {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [POD]}),
        events(then="stay"),
    ]
    with Recorder(Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2) as recorder:
        wait_until(lambda: len(recorder.recording().pods) >= 2)
    kept = recorder.recording()
    loaded = Recording.load(kept.save(tmp_path / "kept"))
    assert loaded.started_at == kept.started_at
    assert loaded.pods["t_seconds"].tolist() == pytest.approx(kept.pods["t_seconds"].tolist())
    assert len(loaded.transitions) == len(kept.transitions) and loaded.hpas.empty
    assert [*loaded.hpas.columns] == [*kept.hpas.columns]
    with pytest.raises(ConfigError, match="no readable recording"):
        Recording.load(tmp_path)


def test_the_limit_ends_a_forgotten_recorder(server: Server, tmp_path: Path) -> None:
    server.answers["/api/v1/namespaces/shop/pods"] = [
        (200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}}),
        events(then="stay"),
    ]
    recorder = Recorder(
        Kube(kubeconfig(tmp_path, server.port)), namespaces=["shop"], interval_s=0.2, limit_s=0.5
    ).start()
    wait_until(lambda: not any(thread.is_alive() for thread in recorder._threads))
    with pytest.raises(ConfigError, match="started before"):
        recorder.start()


def test_too_short_an_interval_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too short"):
        Recorder(Kube(kubeconfig(tmp_path, server.port)), interval_s=0.01)


def test_facts_of_each_kind() -> None:
    assert (
        pod({"metadata": {"deletionTimestamp": "x"}, "status": {"reason": "Evicted"}})["reason"] == "Evicted"
    )
    tainted = {
        "spec": {
            "taints": [{"key": "b", "effect": "NoExecute"}, {"key": "a", "effect": "NoSchedule"}],
            "unschedulable": True,
        }
    }
    assert node(tainted) == {
        "ready": "",
        "reason": "",
        "unschedulable": True,
        "taints": "a:NoSchedule,b:NoExecute",
    }
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 60}}}
    now = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 93}}}
    conditions = [{"type": "ScalingLimited", "status": "True", "reason": "ScaleUpLimit"}]
    facts = hpa(
        {
            "spec": {"maxReplicas": 9, "metrics": [cpu]},
            "status": {"desiredReplicas": 4, "currentMetrics": [now], "conditions": conditions},
        }
    )
    assert (facts["cpu_target_percent"], facts["cpu_utilization_percent"], facts["scaling_limited"]) == (
        60,
        93,
        "ScaleUpLimit",
    )
    assert (facts["min_replicas"], facts["max_replicas"], facts["desired_replicas"]) == (1, 9, 4)
    assert hpa({})["cpu_utilization_percent"] is None
    assert deployment({"spec": {"replicas": 3}, "status": {"readyReplicas": 1}})["ready_replicas"] == 1
