"""The autoscaler model against answers of the upstream controller, and against rules that always hold.

data/hpa_vectors.jsonl.gz: 300 single computations and recommendation series. data/hpa_rounds.jsonl.gz:
140 autoscalers of every metric type over up to 14 rounds, with what Kubernetes v1.37.2's own
reconcileAutoscaler did, its condition reasons and its errors, on a simulated clock.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import hpa
from labkit.hpa import (
    Behavior,
    Controller,
    HpaError,
    HpaSpec,
    MetricUnavailable,
    Observation,
    Pod,
    PodMetric,
    Policy,
    ScalingRules,
    SelectorFault,
    State,
    cpu_utilization,
    decide,
    from_manifest,
    to_manifest,
    to_yaml,
)
from labkit.hpa.quantities import quantity, thousandths

DATA = Path(__file__).parent / "data"


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt") as file:
        return [json.loads(line) for line in file]


VECTORS = lines("hpa_vectors.jsonl.gz")


# --- what upstream computed -------------------------------------------------------------------------------


def test_single_computations_agree_with_upstream() -> None:
    cases = [case for case in VECTORS if case["kind"] == "resource"]
    assert len(cases) == 150
    for case in cases:
        replicas, utilization, error = hpa.replicas_for_resource(case)
        assert error == case["expect_error"]
        if not error:
            assert (replicas, utilization) == (case["expect_replicas"], case["expect_utilization_percent"])


def test_series_of_recommendations_agree_with_upstream() -> None:
    cases = [case for case in VECTORS if case["kind"] == "sequence"]
    assert len(cases) == 150
    for case in cases:
        assert hpa.replay(case) == [step["expect_replicas"] for step in case["steps"]]


READY = {"True": True, "False": False, None: None, "Unknown": "Unknown"}


def pod_of(given: dict[str, Any]) -> Pod:
    requests = {
        c["name"]: {r: thousandths(r, q) for r, q in c["requests"].items()} for c in given["containers"]
    }
    whole = None
    if "pod_requests" in given:
        whole = {r: sum(c[r] for c in requests.values() if r in c) for r in ("cpu", "memory")}
        whole = {r: total for r, total in whole.items() if any(r in c for c in requests.values())}
        whole |= {r: thousandths(r, q) for r, q in given["pod_requests"].items()}
    return Pod(
        given["name"],
        given.get("phase", "Running"),
        given.get("deleting", False),
        READY[given.get("ready", "True")],
        given.get("ready_age", 900.5),
        given.get("age", 1000.5),
        requests,
        whole,
    )


def reading_of(given: dict[str, Any]) -> Any:
    if "error" in given:
        return MetricUnavailable(given["error"])
    if "pods" in given:
        return {n: PodMetric(p["value"], p["age"], p["window"]) for n, p in given["pods"].items()}
    return given.get("value", given.get("values"))


def fault_of(turn: dict[str, Any]) -> SelectorFault | None:
    """A second autoscaler that has the same pods; where there are none, it has none of them."""
    return SelectorFault("AmbiguousSelector", "two have them") if turn.get("rival") and turn["pods"] else None


def reading_key(metric: hpa.Metric) -> str:
    return f"{metric.name}/{metric.container}"


def test_whole_rounds_agree_with_upstream() -> None:
    seen = 0
    for case in lines("hpa_rounds.jsonl.gz"):
        spec = from_manifest({"spec": case["spec"]})
        controller = Controller(
            tolerance=case["tolerance"],
            downscale_stabilization_s=case["downscale_stabilization_s"],
            cpu_initialization_period_s=case["cpu_initialization_period_s"],
            initial_readiness_delay_s=case["initial_readiness_delay_s"],
        )
        state, replicas, now = State(), 0, 0.0
        for turn in case["rounds"]:
            now += turn["dt"] + 1e-6
            replicas = turn.get("replicas", replicas)
            found = {r["key"]: reading_of(r) for r in turn["readings"]}
            readings = [found[reading_key(metric)] for metric in spec.metrics]
            pods = [pod_of(p) for p in turn["pods"]]
            seen_now = Observation(now, replicas, pods, readings, turn.get("status"), fault_of(turn))
            decision = decide(spec, seen_now, state, controller)
            state, replicas = decision.state, decision.replicas
            compare(decision, turn["expect"])
            seen += 1
    assert seen > 1000


def compare(decision: hpa.Decision, expected: dict[str, Any]) -> None:
    assert decision.replicas == expected["replicas"], decision.reasons
    for kind, reason in decision.conditions.items():
        assert expected["conditions"].get(kind) == reason
    failures = [p.message for p in decision.proposals if isinstance(p, MetricUnavailable)]
    if decision.conditions.get("ScalingActive") == "AmbiguousSelector":
        assert "controlled by more than one HPA" in expected["error"]
        return
    assert bool(failures) == bool(expected["error"])
    if failures:
        assert failures[0] in expected["error"]
    for proposal, utilization in zip(decision.proposals, expected["utilization"] or [], strict=False):
        if not isinstance(proposal, MetricUnavailable):
            assert proposal.utilization == utilization
    for proposal, average in zip(decision.proposals, expected.get("averages") or [], strict=False):
        if (
            not isinstance(proposal, MetricUnavailable)
            and average is not None
            and proposal.average is not None
        ):
            assert proposal.average == average


# --- rules that always hold -------------------------------------------------------------------------------

policies = st.builds(
    Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 300), st.sampled_from([15, 60, 600])
)
rules = st.builds(
    ScalingRules,
    st.lists(policies, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.sampled_from([0, 30, 300]),
    st.sampled_from([None, 0.0, 0.2]),
)
specs = st.builds(
    lambda low, span, percent, behavior: HpaSpec(
        low + span, low, metrics=(cpu_utilization(percent),), behavior=behavior
    ),
    st.integers(1, 5),
    st.integers(0, 30),
    st.integers(10, 150),
    st.none() | st.builds(Behavior, rules, rules),
)


def fleet(count: int, millicores: int) -> tuple[list[Pod], dict[str, PodMetric]]:
    pods = [Pod(f"p{i}", ready_age_s=900, age_s=1000, requests={"c": {"cpu": 200}}) for i in range(count)]
    return pods, {pod.name: PodMetric(millicores, 10, 15) for pod in pods}


@settings(max_examples=150, deadline=None)
@given(specs, st.integers(1, 40), st.lists(st.integers(0, 1500), min_size=1, max_size=25))
def test_always_inside_minimum_and_maximum(spec: HpaSpec, replicas: int, usage: list[int]) -> None:
    state = State()
    for i, millicores in enumerate(usage):
        pods, reading = fleet(replicas, millicores)
        decision = decide(spec, Observation(i * 15, replicas, pods, [reading]), state)
        assert spec.min_replicas <= decision.replicas <= spec.max_replicas
        assert decision.reasons[-1].endswith(f" {decision.replicas}.")
        state, replicas = decision.state, decision.replicas


@settings(max_examples=150, deadline=None)
@given(specs, st.integers(0, 1500))
def test_no_scaling_inside_tolerance(spec: HpaSpec, millicores: int) -> None:
    percent = millicores * 100 // 200
    ratio = percent / (spec.metrics[0].target.average_utilization or 0)
    down, up = spec.tolerances(Controller())
    pods, reading = fleet(spec.max_replicas, millicores)
    decision = decide(spec, Observation(0, spec.max_replicas, pods, [reading]))
    if 1 - down <= ratio <= 1 + up:
        assert decision.replicas == spec.max_replicas
        assert "inside the tolerance" in " ".join(decision.reasons)


@settings(max_examples=150, deadline=None)
@given(rules, rules, st.lists(st.integers(0, 60), min_size=2, max_size=40))
def test_policies_are_never_exceeded(up: ScalingRules, down: ScalingRules, wanted: list[int]) -> None:
    """Within any period the change from the period's start stays within what some policy allows."""
    start, dt = 10, 5
    body = {
        name: {
            "selectPolicy": rule.select,
            "stabilizationWindowSeconds": rule.window_seconds,
            "policies": [
                {"type": p.type, "value": p.value, "periodSeconds": p.period_seconds} for p in rule.policies
            ],
        }
        for name, rule in (("scale_up", up), ("scale_down", down))
    }
    steps = [{"dt_s": dt, "recommendation": count} for count in wanted]
    case = {"min_replicas": 1, "max_replicas": 60, "start_replicas": start, "downscale_stabilization_s": 300}
    series = [start, *hpa.replay({**case, **body, "steps": steps})]
    for i in range(1, len(series)):
        for rule, sign in ((up, 1), (down, -1)):
            change = sign * (series[i] - series[i - 1])
            if change <= 0:
                continue
            assert rule.select != "Disabled"
            allowed = [allowance(p, series, i, dt, sign) for p in rule.policies]
            assert change <= (min(allowed) if rule.select == "Min" else max(allowed))


def allowance(policy: Policy, series: list[int], i: int, dt: int, sign: int) -> int:
    """How far the policy lets step i go beyond the count before it."""
    began = series[max(0, i - math.ceil(policy.period_seconds / dt))]
    if policy.type == "Pods":
        limit = began + sign * policy.value
    elif sign > 0:
        limit = math.ceil(began * (1 + policy.value / 100))
    else:
        limit = int(began * (1 - policy.value / 100))
    return sign * (limit - series[i - 1])


# --- several metrics, scaling to zero, words --------------------------------------------------------------

QUEUE = {
    "type": "External",
    "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
}
CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}


def two_metrics(low: int = 1) -> HpaSpec:
    return from_manifest({"spec": {"minReplicas": low, "maxReplicas": 20, "metrics": [CPU, QUEUE]}})


def test_the_largest_proposal_wins() -> None:
    pods, reading = fleet(2, 150)
    decision = decide(two_metrics(), Observation(0, 2, pods, [reading, [70_000]]))
    assert decision.recommendation == 7
    assert decision.replicas == 4
    text = " ".join(decision.reasons)
    assert "largest proposal counts: 7, from external metric queue" in text
    assert "twice the present 2, or 4" in text


def test_a_failed_metric_forbids_scaling_down_but_not_up() -> None:
    failed = MetricUnavailable("no metrics returned from external metrics API")
    pods, idle = fleet(4, 10)
    kept = decide(two_metrics(), Observation(0, 4, pods, [idle, failed]))
    assert (kept.replicas, kept.recommendation) == (4, None)
    assert kept.conditions["ScalingActive"] == "FailedGetExternalMetric"
    assert "queue cannot be used" in kept.reasons[0]
    _, busy = fleet(4, 300)
    assert decide(two_metrics(), Observation(0, 4, pods, [busy, failed])).replicas == 8


def test_to_zero_and_back() -> None:
    spec, now = two_metrics(0), Controller(downscale_stabilization_s=0)
    pods, idle = fleet(1, 0)
    down = decide(spec, Observation(0, 1, pods, [idle, [0]]), None, now)
    assert down.replicas == 0 and down.state.scaled_to_zero
    none = MetricUnavailable("no metrics returned from resource metrics API")
    up = decide(spec, Observation(15, 0, [], [none, [25_000]]), down.state, now)
    assert up.replicas == 3 and not up.state.scaled_to_zero
    by_hand = decide(spec, Observation(15, 0, [], [none, [25_000]]), State(), now)
    assert by_hand.replicas == 0
    assert by_hand.conditions["ScalingActive"] == "ScalingDisabled"


def test_readings_must_match_the_metrics() -> None:
    with pytest.raises(hpa.ObservationError) as caught:
        decide(two_metrics(), Observation(0, 1, [], [{}]))
    assert caught.value.field == "readings"


# --- manifests --------------------------------------------------------------------------------------------

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: pricing}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: pricing, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: pricing}
  maxReplicas: 8
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: AverageValue, averageValue: 250m}}
  - type: ContainerResource
    containerResource: {name: memory, container: app, target: {type: Utilization, averageUtilization: 70}}
  - type: Pods
    pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: "20"}}
  - type: Object
    object:
      metric: {name: hits}
      describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: web}
      target: {type: Value, value: 2k}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 60
      tolerance: 50m
      policies: [{type: Percent, value: 50, periodSeconds: 30}]
"""


def test_yaml_is_read_with_defaults_and_written_back() -> None:
    spec = from_manifest(MANIFEST)
    assert (spec.name, spec.namespace, spec.min_replicas, spec.max_replicas) == ("pricing", "shop", 1, 8)
    assert [m.target.average_value for m in spec.metrics] == [250, None, 20_000, None]
    assert spec.metrics[3].target.value == 2_000_000
    assert spec.behavior is not None
    assert spec.behavior.scale_up == hpa.Behavior().scale_up
    assert spec.tolerances(Controller()) == (0.05, 0.1)
    assert from_manifest(to_yaml(spec)) == spec


def test_defaults_and_the_first_api_version() -> None:
    spec = from_manifest({"spec": {"maxReplicas": 3}})
    assert spec.metrics == (cpu_utilization(80),) and spec.behavior is None
    old = {"apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}}
    assert from_manifest(old).metrics == (cpu_utilization(60),)
    assert to_manifest(spec)["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80


def edit(path: str, value: Any) -> dict[str, Any]:
    """A valid spec with one value replaced."""
    policy = {"type": "Pods", "value": 1, "periodSeconds": 15}
    rule = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [policy]}
    spec: dict[str, Any] = {
        "minReplicas": 1,
        "maxReplicas": 5,
        "metrics": [json.loads(json.dumps(CPU)), json.loads(json.dumps(QUEUE))],
        "behavior": {"scaleUp": rule},
    }
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    node: Any = spec
    for part in way:
        node = node[part]
    node[last] = value
    return {"spec": spec}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("minReplicas", 6, "spec.maxReplicas"),
        ("minReplicas", -1, "spec.minReplicas"),
        ("minReplicas", math.nan, "spec.minReplicas"),
        ("maxReplicas", 0, "spec.maxReplicas"),
        ("maxReplicas", "5", "spec.maxReplicas"),
        ("maxReplicas", None, "spec.maxReplicas"),
        ("metrics/0/type", "Disk", "spec.metrics[0].type"),
        ("metrics/0/resource", None, "spec.metrics[0].resource"),
        ("metrics/0/resource/name", "", "spec.metrics[0].resource.name"),
        ("metrics/0/resource/target", {}, "spec.metrics[0].resource.target.type"),
        (
            "metrics/0/resource/target/averageUtilization",
            0,
            "spec.metrics[0].resource.target.averageUtilization",
        ),
        (
            "metrics/0/resource/target/averageUtilization",
            -5,
            "spec.metrics[0].resource.target.averageUtilization",
        ),
        (
            "metrics/0/resource/target/averageUtilization",
            math.nan,
            "spec.metrics[0].resource.target.averageUtilization",
        ),
        ("metrics/1/external/target/averageValue", "0", "spec.metrics[1].external.target.averageValue"),
        ("metrics/1/external/target/averageValue", "ten", "spec.metrics[1].external.target.averageValue"),
        ("metrics/1/external/target/averageValue", "NaN", "spec.metrics[1].external.target.averageValue"),
        ("metrics", 7, "spec.metrics"),
        (
            "behavior/scaleUp/stabilizationWindowSeconds",
            3601,
            "spec.behavior.scaleUp.stabilizationWindowSeconds",
        ),
        (
            "behavior/scaleUp/stabilizationWindowSeconds",
            -1,
            "spec.behavior.scaleUp.stabilizationWindowSeconds",
        ),
        ("behavior/scaleUp/selectPolicy", "Most", "spec.behavior.scaleUp.selectPolicy"),
        ("behavior/scaleUp/policies", [], "spec.behavior.scaleUp.policies"),
        ("behavior/scaleUp/policies/0/type", "Nodes", "spec.behavior.scaleUp.policies[0].type"),
        ("behavior/scaleUp/policies/0/value", 0, "spec.behavior.scaleUp.policies[0].value"),
        ("behavior/scaleUp/policies/0/value", 1.5, "spec.behavior.scaleUp.policies[0].value"),
        (
            "behavior/scaleUp/policies/0/periodSeconds",
            1801,
            "spec.behavior.scaleUp.policies[0].periodSeconds",
        ),
        ("behavior/scaleUp/tolerance", "-0.1", "spec.behavior.scaleUp.tolerance"),
        ("behavior", 3, "spec.behavior"),
    ],
)
def test_what_the_api_server_refuses_is_refused(path: str, value: Any, field: str) -> None:
    from_manifest(edit("minReplicas", 1))
    with pytest.raises(hpa.SpecError) as caught:
        from_manifest(edit(path, value))
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


def test_zero_replicas_need_a_metric_without_pods_and_the_feature() -> None:
    with pytest.raises(hpa.SpecError, match="minReplicas"):
        from_manifest({"spec": {"minReplicas": 0, "maxReplicas": 2, "metrics": [CPU]}})
    allowed = {"spec": {"minReplicas": 0, "maxReplicas": 2, "metrics": [QUEUE]}}
    assert from_manifest(allowed).min_replicas == 0
    with pytest.raises(hpa.SpecError, match="switched off"):
        from_manifest(allowed, Controller(scale_to_zero=False))


@pytest.mark.parametrize("text", ["{", "kind: Deployment", "a: b\n---\nc: d", "- 1", ""])
def test_what_is_no_autoscaler_is_refused(text: str) -> None:
    with pytest.raises(hpa.SpecError):
        from_manifest(text)


RESOURCE = next(c for c in VECTORS if c["kind"] == "resource" and len(c["pods"]) > 2)
SEQUENCE = next(c for c in VECTORS if c["kind"] == "sequence" and c["scale_up"])


def broken(case: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(case))
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.update(target_utilization_percent=0), "target_utilization_percent"),
        (lambda c: c.update(target_utilization_percent=-50), "target_utilization_percent"),
        (lambda c: c.update(target_utilization_percent=math.nan), "target_utilization_percent"),
        (lambda c: c.update(tolerance_up=-0.1), "tolerance_up"),
        (lambda c: c.update(current_replicas=-1), "current_replicas"),
        (lambda c: c.pop("cpu_initialization_period_s"), "cpu_initialization_period_s"),
        (lambda c: c.update(initial_readiness_delay_s=math.inf), "initial_readiness_delay_s"),
        (lambda c: c["pods"][1].update(usage_millicores=math.nan), "pods[1].usage_millicores"),
        (lambda c: c["pods"][1].update(usage_millicores=-1), "pods[1].usage_millicores"),
        (lambda c: c["pods"][1].update(request_millicores=-1), "pods[1].request_millicores"),
        (lambda c: c["pods"][1].update(metric_age_s=math.nan), "pods[1].metric_age_s"),
        (lambda c: c["pods"][1].update(ready="yes"), "pods[1].ready"),
        (lambda c: c["pods"][1].pop("phase"), "pods[1].phase"),
    ],
)
def test_bad_single_cases_name_the_field(change: Callable[[dict[str, Any]], object], field: str) -> None:
    with pytest.raises(HpaError) as caught:
        hpa.replicas_for_resource(broken(RESOURCE, change))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.update(min_replicas=99), "max_replicas"),
        (lambda c: c.update(min_replicas=None), "min_replicas"),
        (lambda c: c.pop("start_replicas"), "start_replicas"),
        (lambda c: c.update(downscale_stabilization_s=-1), "downscale_stabilization_s"),
        (
            lambda c: c["scale_up"].update(stabilizationWindowSeconds=3601),
            "scale_up.stabilizationWindowSeconds",
        ),
        (lambda c: c["scale_up"]["policies"][0].update(type="X"), "scale_up.policies[0].type"),
        (lambda c: c["steps"][3].update(dt_s=math.nan), "steps[3].dt_s"),
        (lambda c: c["steps"][3].update(recommendation=math.nan), "steps[3].recommendation"),
    ],
)
def test_bad_series_name_the_field(change: Callable[[dict[str, Any]], object], field: str) -> None:
    with pytest.raises(HpaError) as caught:
        hpa.replay(broken(SEQUENCE, change))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "milli", "back"), [("250m", 250, "250m"), ("1.5", 1500, "1500m"), ("1e3", 10**6, "1000")]
)
def test_quantities(text: str, milli: int, back: str) -> None:
    assert thousandths("x", text) == milli
    assert quantity(milli) == back
    assert thousandths("x", "0.1m") == 1
    assert quantity(thousandths("x", "64Mi"), "memory") == "64Mi"
