"""Manifests of autoscalers: what goes in comes out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.hpa import SpecError, from_manifest, to_manifest
from labkit.kube.quantities import parse_quantity

names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
amounts = st.builds(
    "{}{}".format, st.integers(1, 99999), st.sampled_from(["", "m", "u", "n", "k", "M", "Ki", "Gi", "e3"])
)
tolerances = st.none() | amounts | st.sampled_from(["0", "100u", "0.015", "1n", "123456789n"])
labels = st.dictionaries(names, names, max_size=2)
expressions = st.builds(
    lambda key, values: (
        {"key": key, "operator": "In", "values": values} if values else {"key": key, "operator": "Exists"}
    ),
    names,
    st.lists(names, max_size=2),
)
selectors = st.none() | st.builds(
    lambda plain, structured: {"matchLabels": plain, "matchExpressions": structured},
    labels,
    st.lists(expressions, max_size=2),
)


def average(amount: str) -> dict[str, Any]:
    return {"type": "AverageValue", "averageValue": amount}


def value(amount: str) -> dict[str, Any]:
    return {"type": "Value", "value": amount}


def utilization(percent: int) -> dict[str, Any]:
    return {"type": "Utilization", "averageUtilization": percent}


def identifier(name: str, selector: Any) -> dict[str, Any]:
    return {"name": name} if selector is None else {"name": name, "selector": selector}


def described(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "name": name}


percents = st.builds(utilization, st.integers(1, 500))
series = st.builds(identifier, names, selectors)
things = st.builds(
    described,
    st.sampled_from(["v1", "apps/v1", "networking.k8s.io/v1"]),
    st.sampled_from(["Pod", "Ingress"]),
    names,
)


def entry(source: str, field: str, **parts: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(source), field: st.fixed_dictionaries(parts)})


metrics = st.one_of(
    entry("Resource", "resource", name=names, target=percents | st.builds(average, amounts)),
    entry(
        "ContainerResource", "containerResource", name=st.sampled_from(["cpu", "memory"]), container=names,
        target=percents | st.builds(average, amounts),
    ),
    entry("Pods", "pods", metric=series, target=st.builds(average, amounts)),
    entry("External", "external", metric=series, target=st.builds(average, amounts) | st.builds(value, amounts)),
    entry("Object", "object", metric=series, describedObject=things, target=st.builds(value, amounts)),
)  # fmt: skip
policies = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["Pods", "Percent"]),
        "value": st.integers(1, 900),
        "periodSeconds": st.integers(1, 1800),
    }
)


def rules(window: int, select: str, entries: list[Any], tolerance: str | None) -> dict[str, Any]:
    made = {"stabilizationWindowSeconds": window, "selectPolicy": select, "policies": entries}
    return made if tolerance is None else {**made, "tolerance": tolerance}


directions = st.builds(
    rules,
    st.integers(0, 3600),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.lists(policies, min_size=1, max_size=3),
    tolerances,
)


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """Autoscalers in which nothing is left to defaults."""
    meta = {"name": draw(names), "namespace": draw(names)}
    for field in ("labels", "annotations"):
        if given := draw(labels):
            meta[field] = given
    low = draw(st.integers(1, 5))
    kind = draw(
        st.sampled_from([("apps/v1", "StatefulSet"), ("v1", "ReplicationController"), ("x.io/v1", "Shop")])
    )
    spec = {
        "scaleTargetRef": described(*kind, draw(names)),
        "minReplicas": low,
        "maxReplicas": low + draw(st.integers(0, 40)),
        "metrics": draw(st.lists(metrics, min_size=1, max_size=4)),
    }
    if draw(st.booleans()):
        spec["behavior"] = {"scaleUp": draw(directions), "scaleDown": draw(directions)}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}


def by_value(manifest: dict[str, Any]) -> dict[str, Any]:
    """With tolerances, which the model holds as numbers, in one notation."""
    made = copy.deepcopy(manifest)
    for rule in made["spec"].get("behavior", {}).values():
        if "tolerance" in rule:
            rule["tolerance"] = round(float(parse_quantity(rule["tolerance"])), 9)
    return made


@settings(max_examples=200)
@given(manifests())
def test_what_goes_in_comes_out(manifest: dict[str, Any]) -> None:
    before = copy.deepcopy(manifest)
    spec = from_manifest(manifest)
    assert by_value(to_manifest(spec)) == by_value(before)
    assert from_manifest(to_manifest(spec)) == spec and manifest == before


def test_a_target_that_was_changed_is_written_as_it_is_now() -> None:
    from dataclasses import replace

    target = {"type": "AverageValue", "averageValue": "100u"}
    manifest = {
        "spec": {
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        }
    }
    spec = from_manifest(manifest)
    metric = spec.metrics[0]
    assert to_manifest(spec)["spec"]["metrics"][0]["resource"]["target"] == target
    changed = replace(spec, metrics=(replace(metric, target=replace(metric.target, average_value=300)),))
    assert to_manifest(changed)["spec"]["metrics"][0]["resource"]["target"]["averageValue"] == "300m"


def test_an_old_object_that_hides_its_metrics_is_refused_by_name() -> None:
    meta = {"name": "web", "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]"}}
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    old = {
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": meta,
        "spec": {"maxReplicas": 3, "scaleTargetRef": reference},
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"autoscaling\.alpha\.kubernetes\.io/metrics") as caught:
        from_manifest(old)
    assert "autoscaling/v2" in caught.value.hint
