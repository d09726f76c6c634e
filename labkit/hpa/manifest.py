"""HorizontalPodAutoscaler manifests to checked specs, and back.

Defaults are filled in as the API server of v1.37 does (pkg/apis/autoscaling/v2/defaults.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from labkit.hpa import names
from labkit.hpa.errors import SpecError, choice, inside
from labkit.hpa.quantities import approximate, exact, quantity, small, thousandths
from labkit.hpa.spec import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    SOURCES,
    TARGETS,
    Behavior,
    Controller,
    HpaSpec,
    Metric,
    Policy,
    ScalingRules,
    Target,
    cpu_utilization,
    default_metrics,
)

KIND: Final = "HorizontalPodAutoscaler"
HIDDEN: Final = ("autoscaling.alpha.kubernetes.io/metrics", "autoscaling.alpha.kubernetes.io/behavior")
FIELDS: Final = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def from_manifest(source: Mapping[str, Any] | str | Path, controller: Controller | None = None) -> HpaSpec:
    """The spec of an autoscaling/v2 (or v1) object, given as a dict, as YAML, or as a file's path.

    Of a YAML with several documents, the one HorizontalPodAutoscaler is taken. What has a `kind` is judged
    as a whole object; without one it may be a bare spec, which names neither itself nor its target.

    Raises:
        SpecError: not such an object, or a value that the API server would refuse; `.field` names it.
    """
    document = _document(source)
    spec = _mapping("spec", document.get("spec"))
    metadata = document.get("metadata") or {}
    if "kind" in document and not metadata.get("generateName"):
        names.subdomain("metadata.name", metadata.get("name"))
    built = inside("spec", lambda: _spec(spec, metadata, str(document.get("apiVersion")), "kind" in document))
    if built.min_replicas == 0 and not (controller or Controller()).scale_to_zero:
        raise SpecError("spec.minReplicas", "found 0, but scaling to zero is switched off", "Give 1 or more.")
    return built


def _document(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        documents: list[Any] = [source]
    else:
        text = source.read_text() if isinstance(source, Path) else source
        try:
            documents = list(yaml.safe_load_all(text))
        except yaml.YAMLError as error:
            raise SpecError("manifest", f"is not YAML: {error}") from None
    found = [d for d in documents if isinstance(d, Mapping) and d.get("kind", KIND) == KIND]
    if len(found) != 1:
        raise SpecError("kind", f"found {len(found)} objects of kind {KIND}, one is needed")
    version = found[0].get("apiVersion", "autoscaling/v2")
    choice("apiVersion", version, ("autoscaling/v2", "autoscaling/v1"), SpecError)
    annotations = (found[0].get("metadata") or {}).get("annotations") or {}
    hidden = [key for key in HIDDEN if key in annotations and version == "autoscaling/v1"]
    if hidden:
        raise SpecError(
            "metadata.annotations", f"{hidden[0]} holds a part of the spec", "Read it as autoscaling/v2."
        )
    return found[0]


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(field, f"found {value!r}", "Give an object with fields.")
    return value


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(field, f"found {value!r}", "Give a list.")
    return value


def _spec(spec: Mapping[str, Any], metadata: Mapping[str, Any], version: str, whole_object: bool) -> HpaSpec:
    if spec.get("maxReplicas") is None:
        raise SpecError("maxReplicas", "is missing", "Give a whole number of at least 1.")
    target = ("apps/v1", "Deployment", "")
    given = spec.get("scaleTargetRef")
    if given is not None or whole_object:
        core = isinstance(given, Mapping) and given.get("kind") == "ReplicationController"
        target = names.reference("scaleTargetRef", given, may_be_core=core)
    least = spec.get("minReplicas")
    behavior = spec.get("behavior")
    return HpaSpec(
        max_replicas=spec["maxReplicas"],
        min_replicas=1 if least is None else least,
        metrics=_metrics(spec, version),
        behavior=None if behavior is None else inside("behavior", lambda: _behavior(behavior)),
        name=metadata.get("name", "hpa"),
        namespace=metadata.get("namespace", "default"),
        target_api_version=target[0],
        target_kind=target[1],
        target_name=target[2],
        labels=dict(metadata.get("labels") or {}),
        annotations=dict(metadata.get("annotations") or {}),
    )


def _metrics(spec: Mapping[str, Any], version: str) -> tuple[Metric, ...]:
    percent = spec.get("targetCPUUtilizationPercentage")
    if version == "autoscaling/v1" and percent is not None:
        return (inside("targetCPUUtilizationPercentage", lambda: cpu_utilization(percent)),)
    entries = _list("metrics", [] if spec.get("metrics") is None else spec["metrics"])
    built = []
    for i, entry in enumerate(entries):
        built.append(inside(f"metrics[{i}]", lambda e=entry: _metric(e)))  # type: ignore[misc]
    return tuple(built) or default_metrics()


def _metric(entry: Any) -> Metric:
    source = choice("type", _mapping("", {} if entry is None else entry).get("type"), SOURCES)
    name = FIELDS[source]
    body = _mapping(name, entry.get(name))
    others = [other for other in FIELDS.values() if other != name and entry.get(other) is not None]
    if others:
        raise SpecError(others[0], f"found beside {name}", "Make each source an entry of its own.")
    return inside(name, lambda: _metric_body(source, body))


def _metric_body(source: str, body: Mapping[str, Any]) -> Metric:
    described, container, selector = ("", "", ""), "", None
    if source == "Object":
        described = names.reference("describedObject", body.get("describedObject"), may_be_core=True)
    if source == "Resource":
        name = names.text("name", body.get("name"))
    elif source == "ContainerResource":
        name = names.container_resource("name", body.get("name"))
        container = names.container("container", body.get("container"))
    else:
        identifier = _mapping("metric", body.get("metric") or {})
        name = names.segment("metric.name", identifier.get("name"), "Name the metric.")
        if identifier.get("selector") is not None:
            selector = _mapping("metric.selector", identifier["selector"])
    return Metric(
        source,
        name,
        inside("target", lambda: _target(_mapping("", body.get("target") or {}))),
        container=container,
        object_api_version=described[0],
        object_kind=described[1],
        object_name=described[2],
        selector=selector,
    )


def _target(target: Mapping[str, Any]) -> Target:
    choice("type", target.get("type"), TARGETS)
    given = {name: target[name] for name in ("averageValue", "value") if target.get(name) is not None}
    values = {name: thousandths(name, text) for name, text in given.items()}
    written = tuple((name, str(text).strip()) for name, text in given.items())
    return Target(
        target["type"],
        target.get("averageUtilization"),
        values.get("averageValue"),
        values.get("value"),
        written,
    )


def _behavior(given: Any) -> Behavior:
    body = _mapping("", given)
    return Behavior(
        inside("scaleUp", lambda: rules_from(body.get("scaleUp"), DEFAULT_SCALE_UP)),
        inside("scaleDown", lambda: rules_from(body.get("scaleDown"), DEFAULT_SCALE_DOWN)),
    )


def rules_from(given: Any, default: ScalingRules) -> ScalingRules:
    """One direction of `spec.behavior`; what it leaves out comes from `default`."""
    if given is None:
        return default
    body = _mapping("", given)
    tolerance, window, select = (
        body.get(name) for name in ("tolerance", "stabilizationWindowSeconds", "selectPolicy")
    )
    policies = default.policies
    if body.get("policies") is not None:
        entries = _list("policies", body["policies"])
        policies = tuple(
            inside(f"policies[{i}]", lambda e=entry: _policy(e))  # type: ignore[misc]
            for i, entry in enumerate(entries)
        )
    return ScalingRules(
        policies,
        default.select if select is None else select,
        default.window_seconds if window is None else window,
        default.tolerance if tolerance is None else approximate("tolerance", tolerance),
    )


def _policy(entry: Any) -> Policy:
    body = _mapping("", {} if entry is None else entry)
    for name in ("type", "value", "periodSeconds"):
        if body.get(name) is None:
            raise SpecError(name, "is missing")
    return Policy(body["type"], body["value"], body["periodSeconds"])


def to_manifest(spec: HpaSpec) -> dict[str, Any]:
    """The autoscaling/v2 object, which applies as it is (give the spec a `target_name`)."""
    body: dict[str, Any] = {
        "scaleTargetRef": {
            "apiVersion": spec.target_api_version,
            "kind": spec.target_kind,
            "name": spec.target_name or spec.name,
        },
        "minReplicas": spec.min_replicas,
        "maxReplicas": spec.max_replicas,
        "metrics": [_metric_entry(metric) for metric in spec.metrics],
    }
    if spec.behavior is not None:
        rules = {"scaleUp": spec.behavior.scale_up, "scaleDown": spec.behavior.scale_down}
        body["behavior"] = {name: _rules_entry(rule) for name, rule in rules.items()}
    metadata: dict[str, Any] = {"name": spec.name, "namespace": spec.namespace}
    extra = {"labels": dict(spec.labels), "annotations": dict(spec.annotations)}
    metadata |= {name: entries for name, entries in extra.items() if entries}
    return {"apiVersion": "autoscaling/v2", "kind": KIND, "metadata": metadata, "spec": body}


def to_yaml(spec: HpaSpec) -> str:
    """`to_manifest` as YAML, in the usual order of fields."""
    text: str = yaml.safe_dump(to_manifest(spec), sort_keys=False)
    return text


def _metric_entry(metric: Metric) -> dict[str, Any]:
    target: dict[str, Any] = {"type": metric.target.type}
    if metric.target.average_utilization is not None:
        target["averageUtilization"] = metric.target.average_utilization
    for name, value in (("averageValue", metric.target.average_value), ("value", metric.target.value)):
        if value is not None:
            target[name] = _written(metric, name, value)
    if metric.source in ("Resource", "ContainerResource"):
        body: dict[str, Any] = {"name": metric.name, "target": target}
        if metric.container:
            body["container"] = metric.container
    else:
        body = {"metric": {"name": metric.name}, "target": target}
        if metric.selector is not None:
            body["metric"]["selector"] = dict(metric.selector)
        if metric.source == "Object":
            described = {"kind": metric.object_kind, "name": metric.object_name}
            if metric.object_api_version:
                described["apiVersion"] = metric.object_api_version
            body["describedObject"] = described
    return {"type": metric.source, FIELDS[metric.source]: body}


def _written(metric: Metric, field: str, value: int) -> str:
    """A target's quantity as the manifest had it, where that is still its value."""
    for name, text in metric.target.written:
        if name == field and exact(field, text).scaled(3) == value:
            return text
    return quantity(value, metric.name)


def _rules_entry(rules: ScalingRules) -> dict[str, Any]:
    entry: dict[str, Any] = {"selectPolicy": rules.select}
    if rules.window_seconds is not None:
        entry["stabilizationWindowSeconds"] = rules.window_seconds
    if rules.tolerance is not None:
        entry["tolerance"] = small(rules.tolerance)
    entry["policies"] = [
        {"type": p.type, "value": p.value, "periodSeconds": p.period_seconds} for p in rules.policies
    ]
    return entry
