"""What is asked of an API server about an autoscaler, over real HTTP; the server's answers are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from labkit.hpa.explain import Explanation
from labkit.hpa.live import explain_live
from labkit.kube import Kube

from .api_server import Server, kubeconfig

APPS = "/apis/apps/v1/namespaces/shop/deployments"
HPAS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"
CUSTOM, EXTERNAL = "/apis/custom.metrics.k8s.io", "/apis/external.metrics.k8s.io"
GROUPS = {
    "apps": {"Deployment": "deployments"},
    "autoscaling": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io": {"Ingress": "ingresses"},
    "metrics.k8s.io": {"PodMetrics": "pods"},
    "example.com": {"Ingress": "wrongingresses"},
}
VERSIONS = {"autoscaling": "v2", "metrics.k8s.io": "v1beta1"}


def resources(kinds: dict[str, str]) -> dict[str, Any]:
    listed = [
        {"name": name, "kind": kind, "namespaced": True, "singularName": kind.lower(), "verbs": ["get"]}
        for kind, name in kinds.items()
    ]
    return {"kind": "APIResourceList", "resources": listed}


def hpa(name: str, target: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 9, "metrics": list(metrics)},
        "status": {"currentReplicas": 1, "desiredReplicas": 1},
    }


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {
            "phase": "Running",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
        },
    }


def scale(replicas: int, selector: str) -> dict[str, Any]:
    return {"spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": selector}}


CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}
AVERAGE = {"type": "AverageValue", "averageValue": "10"}
SELECTOR = {
    "matchLabels": {"queue": "orders"},
    "matchExpressions": [{"key": "zone", "operator": "In", "values": ["b", "a"]}],
}
SENT = "queue=orders,zone in (a,b)"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # no cluster of labkit's is this server
    made = Server()
    groups = []
    for group, kinds in GROUPS.items():
        version = VERSIONS.get(group, "v1")
        known = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [known], "preferredVersion": known})
        made.answers[f"/apis/{group}/{version}"] = [(200, resources(kinds))]
    made.answers["/apis"] = [(200, {"kind": "APIGroupList", "groups": groups})]
    made.answers["/api"] = [(200, {"versions": ["v1"]})]
    made.answers["/api/v1"] = [
        (200, resources({"Pod": "pods", "Event": "events", "Namespace": "namespaces"}))
    ]
    two = {"kind": "PodList", "apiVersion": "v1", "items": [pod("w0", app="web"), pod("w1", app="web")]}
    made.answers["/api/v1/namespaces/shop/pods"] = [(200, two)]
    made.answers["/api/v1/namespaces/shop/events"] = [
        (200, {"kind": "EventList", "apiVersion": "v1", "items": []})
    ]
    made.answers["/api/v1/namespaces/kube-system/pods"] = [
        (200, {"kind": "PodList", "apiVersion": "v1", "items": []})
    ]
    made.answers[f"{APPS}/web/scale"] = [(200, scale(2, "app=web"))]
    yield made
    made.http.shutdown()


def explained(
    server: Server, folder: Path, *metrics: dict[str, Any], beside: list[Any] | None = None
) -> Explanation:
    own = hpa("web", "web", *metrics)
    server.answers[f"{HPAS}/web"] = [(200, own)]
    every = {
        "kind": "HorizontalPodAutoscalerList",
        "apiVersion": "autoscaling/v2",
        "items": [own, *(beside or [])],
    }
    server.answers[HPAS] = [(200, every)]
    return explain_live(Kube(kubeconfig(folder, server.port), patience_s=1), "web", "shop")


def asked(server: Server, of: str) -> str:
    """The last request to an API, readable."""
    return unquote([each for each in server.seen if of in each][-1].replace("+", " ")).removeprefix("GET ")


def external(**more: Any) -> dict[str, Any]:
    return {"type": "External", "external": {"metric": {"name": "depth", **more}, "target": AVERAGE}}


def described(api_version: str, kind: str, name: str) -> dict[str, Any]:
    thing = {"apiVersion": api_version, "kind": kind, "name": name}
    metric = {"name": "hits", "selector": SELECTOR}
    return {"type": "Object", "object": {"metric": metric, "describedObject": thing, "target": AVERAGE}}


def test_an_external_metric_is_asked_for_with_its_selector(server: Server, tmp_path: Path) -> None:
    path = f"{EXTERNAL}/v1beta1/namespaces/shop/depth"
    server.answers[path] = [(200, {"items": [{"value": "40"}]})]
    found = explained(server, tmp_path, external(selector=SELECTOR))
    assert found.decision.recommendation == 4
    assert asked(server, "depth") == f"{path}?labelSelector={SENT}"


def test_a_pods_metric_is_asked_for_with_both_selectors(server: Server, tmp_path: Path) -> None:
    metric = {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": SELECTOR}, "target": AVERAGE}}
    explained(server, tmp_path, metric)
    assert asked(server, "rps") == (
        f"{CUSTOM}/v1beta2/namespaces/shop/pods/*/rps?labelSelector=app=web&metricLabelSelector={SENT}"
    )


def test_an_objects_resource_comes_from_discovery_with_its_group(server: Server, tmp_path: Path) -> None:
    path = f"{CUSTOM}/v1beta2/namespaces/shop/ingresses.networking.k8s.io/edge/hits"
    server.answers[path] = [(200, {"items": [{"value": "60"}]})]
    found = explained(server, tmp_path, described("networking.k8s.io/v1beta1", "Ingress", "edge"))
    assert found.decision.recommendation == 6, "whichever version the reference names"
    assert asked(server, "hits") == f"{path}?metricLabelSelector={SENT}"


def test_a_described_namespace_is_the_autoscalers_own(server: Server, tmp_path: Path) -> None:
    explained(server, tmp_path, described("v1", "Namespace", "elsewhere"))
    assert (
        asked(server, "hits") == f"{CUSTOM}/v1beta2/namespaces/shop/metrics/hits?metricLabelSelector={SENT}"
    )


def test_a_core_object_has_no_group_and_an_unknown_kind_is_told(server: Server, tmp_path: Path) -> None:
    explained(server, tmp_path, described("v1", "Pod", "w0"))
    assert asked(server, "hits").startswith(f"{CUSTOM}/v1beta2/namespaces/shop/pods/w0/hits")
    (problem,) = explained(server, tmp_path, described("example.org/v1", "Ingress", "edge")).problems
    assert "knows no kind 'Ingress' in example.org" in problem


def test_a_metrics_api_is_asked_in_the_version_that_it_serves(server: Server, tmp_path: Path) -> None:
    old = {"groupVersion": "custom.metrics.k8s.io/v1beta1", "version": "v1beta1"}
    server.answers[CUSTOM] = [(200, {"versions": [old], "preferredVersion": old})]
    explained(server, tmp_path, described("v1", "Pod", "w0"))
    assert asked(server, "hits").startswith(f"{CUSTOM}/v1beta1/")


def test_replicas_are_those_of_the_scale_and_not_of_a_status_that_is_a_round_old(
    server: Server, tmp_path: Path
) -> None:
    server.answers[f"{APPS}/web/scale"] = [(200, scale(5, "app=web"))]
    found = explained(server, tmp_path, external())
    assert found.decision.before == 5 and "has 5 replicas" in found.headline


def test_two_autoscalers_on_the_same_pods_are_told_instead_of_advice(server: Server, tmp_path: Path) -> None:
    server.answers[f"{EXTERNAL}/v1beta1/namespaces/shop/depth"] = [(200, {"items": [{"value": "90"}]})]
    server.answers[f"{APPS}/canary/scale"] = [(200, scale(1, "app=web,track=canary"))]
    found = explained(server, tmp_path, external(), beside=[hpa("second", "canary", external())])
    assert found.decision.conditions["ScalingActive"] == "AmbiguousSelector"
    assert found.decision.replicas == found.decision.before == 2
    assert "controlled by more than one autoscaler (second, web)" in found.problems[0]
    assert "or more" not in found.grow and "or less" not in found.shrink and "AmbiguousSelector" in found.grow


def test_an_autoscaler_of_other_pods_is_no_rival(server: Server, tmp_path: Path) -> None:
    server.answers[f"{EXTERNAL}/v1beta1/namespaces/shop/depth"] = [(200, {"items": [{"value": "90"}]})]
    other = hpa("second", "gone", external())
    found = explained(server, tmp_path, external(), beside=[other])
    assert found.decision.recommendation == 9 and found.problems == ()


def test_a_target_without_a_selector_is_not_taken_for_every_pod(server: Server, tmp_path: Path) -> None:
    server.answers[f"{APPS}/web/scale"] = [(200, scale(2, ""))]
    found = explained(server, tmp_path, CPU)
    assert found.decision.conditions["ScalingActive"] == "InvalidSelector"
    assert "missing a selector" in found.problems[0]


def test_flags_come_from_the_controller_managers_pod_and_are_named(server: Server, tmp_path: Path) -> None:
    assert "assumed: upstream's defaults" in explained(server, tmp_path, external()).settings
    command = ["kube-controller-manager", "--horizontal_pod_autoscaler_tolerance", "0.3"]
    manager = {"metadata": {"name": "kcm"}, "spec": {"containers": [{"command": command}]}}
    listed = {"kind": "PodList", "apiVersion": "v1", "items": [manager]}
    server.answers["/api/v1/namespaces/kube-system/pods"] = [(200, listed)]
    settings = explained(server, tmp_path, external()).settings
    assert "tolerance 0.3" in settings and "read from pod kube-system/kcm" in settings
