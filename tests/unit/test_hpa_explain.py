"""Explanations of autoscalers. data/hpa_live.json was read from a running cluster (Kubernetes v1.37.2)."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.hpa import (
    Controller,
    HpaError,
    MetricUnavailable,
    PodMetric,
    cpu_utilization,
    from_manifest,
    observe,
)
from labkit.hpa.calculator import Fleet, Tolerance, propose
from labkit.hpa.explain import Explanation, explain, turning_point
from labkit.hpa.pods import Pod
from labkit.hpa.spec import Metric, Target

LIVE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "hpa_live.json").read_text())
NOW = datetime.fromisoformat(LIVE["now"])


def explained(change: Any = None, **given: Any) -> Explanation:
    live = copy.deepcopy(LIVE)
    if change:
        change(live)
    answers = given.pop("answers", [live["metrics"]])
    return explain(live["hpa"], live["pods"], answers, live["events"], NOW, **given)


def test_a_live_autoscaler() -> None:
    found = explained()
    assert found.headline == "default/burn: Deployment burn has 3 replicas; allowed are 1 to 3."
    assert found.why[0].startswith("102 seconds ago it was scaled. New size: 3")
    assert "cpu is at 27 % of the request (27m per pod over 3 pods); the target is 90 %" in found.why[1]
    assert "Fewer would do, but the highest recommendation of 300 s counts." in found.why
    assert found.decision.recommendation == 1
    assert found.grow == "not possible: maxReplicas 3 is reached."
    assert found.shrink == ("cpu at 60 % of the request or less, 60m per pod (now 27 %), for 300 s on end.")
    assert found.problems == ()
    assert str(found).splitlines()[2] == "Why:"


def test_room_to_grow() -> None:
    def change(live: dict[str, Any]) -> None:
        spec = live["hpa"]["spec"]
        spec["maxReplicas"] = 9
        rule = {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]}
        spec["behavior"] = {"scaleUp": rule | {"stabilizationWindowSeconds": 30}}

    assert explained(change).grow == (
        "cpu at 100 % of the request or more, 100m per pod (now 27 %), for 30 s on end; "
        "then by at most 2 pods per 15 s."
    )


def test_switched_off_directions() -> None:
    def change(live: dict[str, Any]) -> None:
        live["hpa"]["spec"]["maxReplicas"] = 9
        off = {"selectPolicy": "Disabled"}
        live["hpa"]["spec"]["behavior"] = {"scaleUp": off, "scaleDown": off}

    found = explained(change)
    assert "selectPolicy Disabled in spec.behavior.scaleUp" in found.grow
    assert "selectPolicy Disabled in spec.behavior.scaleDown" in found.shrink


def test_missing_requests_are_named_with_the_remedy() -> None:
    def change(live: dict[str, Any]) -> None:
        live["pods"][1]["spec"]["containers"][0]["resources"] = {}

    name = LIVE["pods"][1]["metadata"]["name"]
    (problem,) = explained(change).problems
    assert f"missing request for cpu in container c of Pod {name}" in problem
    assert "Set resources.requests" in problem


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"items": []}, "no metrics returned from resource metrics API. Does metrics-server run"),
        (
            MetricUnavailable("unable to fetch metrics from resource metrics API: 404"),
            "kubectl get apiservices v1beta1.metrics.k8s.io",
        ),
    ],
)
def test_no_metrics(answer: Any, said: str) -> None:
    found = explained(answers=[answer])
    assert said in found.problems[0]
    assert found.shrink == "first every metric must become readable."


def test_no_pods() -> None:
    found = explained(lambda live: live.update(pods=[]))
    assert "no pods returned by selector" in found.problems[0]


def test_pods_too_young_to_count() -> None:
    def ago(seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    def change(live: dict[str, Any]) -> None:
        for each in live["pods"]:
            each["status"]["startTime"] = ago(20)
            each["status"]["conditions"] = [
                {"type": "Ready", "status": "True", "lastTransitionTime": ago(15)}
            ]
        for each in live["metrics"]["items"]:
            each.update(timestamp=ago(5), window="15s")

    (problem,) = explained(change).problems
    assert "did not receive metrics" in problem and "too young" in problem
    assert explained(change, controller=Controller(cpu_initialization_period_s=10)).problems == ()


def test_zero_replicas_set_by_hand() -> None:
    def change(live: dict[str, Any]) -> None:
        live["pods"] = []
        live["hpa"]["status"]["currentReplicas"] = 0

    assert "set by someone else" in " ".join(explained(change).why)


metrics = st.sampled_from(
    [
        cpu_utilization(60),
        cpu_utilization(7),
        Metric("Resource", "cpu", Target("AverageValue", average_value=120)),
        Metric("Pods", "rps", Target("AverageValue", average_value=20_000)),
        Metric("External", "queue", Target("AverageValue", average_value=10_000)),
        Metric("External", "queue", Target("Value", value=30_000)),
        Metric("Object", "hits", Target("Value", value=50_000), object_kind="Ingress", object_name="web"),
    ]
)


@settings(max_examples=120, deadline=None)
@given(metrics, st.integers(1, 30), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.1, 2.0]))
def test_turning_points_turn(metric: Metric, replicas: int, down: float, up: float) -> None:
    """At the turning point the model scales, one step before it does not."""
    tolerance = Tolerance(down, up)
    pods = [Pod(f"p{i}", age_s=9e9, ready_age_s=9e9, requests={"c": {"cpu": 100}}) for i in range(replicas)]

    def wanted(value: int) -> int:
        reading: Any = {pod.name: PodMetric(value) for pod in pods}
        if metric.source in ("Object", "External"):
            total = value * (replicas if metric.target.value is None else 1)
            reading = [total] if metric.source == "External" else total
        fleet = Fleet(replicas, replicas, pods)
        return propose(metric, reading, fleet, tolerance, Controller()).replicas

    more, fewer = (turning_point(metric, replicas, tolerance, sign) for sign in (+1, -1))
    assert wanted(more) > replicas >= wanted(more - 1)
    assert fewer < 0 or wanted(fewer) < replicas <= wanted(fewer + 1)


# --- objects to model inputs ------------------------------------------------------------------------------


def test_pods_of_the_cluster() -> None:
    pod = observe.pod(LIVE["pods"][0], NOW)
    assert (pod.phase, pod.ready, pod.deleting) == ("Running", True, False)
    assert (pod.age_s, pod.ready_age_s) == (102.0, 101.0)
    assert pod.requests == {"c": {"cpu": 100}} and pod.pod_requests is None


def test_sidecars_count_and_init_containers_do_not() -> None:
    def container(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}

    spec: dict[str, Any] = {
        "containers": [container("app", "100m")],
        "initContainers": [container("setup", "2"), container("proxy", "50m", restartPolicy="Always")],
    }
    assert observe.pod({"spec": spec}, NOW).requests == {"app": {"cpu": 100}, "proxy": {"cpu": 50}}
    spec["resources"] = {"requests": {"memory": "1Gi"}}
    assert observe.pod({"spec": spec}, NOW).pod_requests == {"cpu": 2000, "memory": 2**30 * 1000}


def test_incomplete_samples_are_left_out() -> None:
    def item(name: str, *usage: dict[str, str]) -> dict[str, Any]:
        containers = [{"name": f"c{i}", "usage": u} for i, u in enumerate(usage)]
        return {
            "metadata": {"name": name},
            "timestamp": (NOW - timedelta(seconds=4)).isoformat(),
            "window": "10.5s",
            "containers": containers,
        }

    items = [item("a", {"cpu": "1500u"}, {"cpu": "3m"}), item("b", {"cpu": "1m"}, {}), item("c")]
    assert observe.samples(items, "cpu", NOW) == {"a": PodMetric(5, 4.0, 10.5)}
    assert set(observe.samples(items, "cpu", NOW, "c0")) == {"a", "b"}


def test_custom_and_external_answers() -> None:
    spec = from_manifest(
        {
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": AVERAGE}},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": AVERAGE}},
                    {
                        "type": "Object",
                        "object": {
                            "metric": {"name": "h"},
                            "describedObject": {"kind": "Ingress", "name": "web"},
                            "target": AVERAGE,
                        },
                    },
                ],
            }
        }
    )
    item = {"describedObject": {"name": "p0"}, "value": "1500m", "timestamp": LIVE["now"]}
    answers = [{"items": [item]}, {"items": [item, item]}, {"items": [item]}]
    assert observe.readings(spec, answers, NOW) == [{"p0": PodMetric(1500, 0.0, 60.0)}, [1500, 1500], 1500]


AVERAGE = {"type": "AverageValue", "averageValue": "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("15s", 15), ("1m30s", 90), ("2h0m0s", 7200), ("10.5s", 10.5), ("500ms", 0.5), ("0", 0)],
)
def test_durations(text: str, value: float) -> None:
    assert observe.seconds("window", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "5", "5x", "1m-3s"])
def test_no_durations(text: str) -> None:
    if text:
        with pytest.raises(HpaError, match="window"):
            observe.seconds("window", text)
    else:
        assert observe.seconds("window", text) == 0


def test_flags_of_a_controller_manager() -> None:
    argv = [
        "kube-controller-manager",
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-tolerance=0.2",
        "--horizontal-pod-autoscaler-downscale-stabilization=1m0s",
        "--feature-gates=A=true,HPAScaleToZero=false",
    ]
    assert observe.controller(argv) == Controller(5, 0.2, 60, scale_to_zero=False)
    assert observe.controller([]) == Controller()
    with pytest.raises(HpaError, match="tolerance"):
        observe.controller(["--horizontal-pod-autoscaler-tolerance=much"])


def test_bad_samples_name_the_field() -> None:
    broken = copy.deepcopy(LIVE["metrics"])
    broken["items"][0]["containers"][0]["usage"]["cpu"] = "NaN"
    with pytest.raises(HpaError) as caught:
        explained(answers=[broken])
    assert caught.value.field == "metrics[0].usage.cpu"
