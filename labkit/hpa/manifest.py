"""HorizontalPodAutoscaler manifests to checked specs, and back.

Defaults are filled in as the API server of v1.37 does (pkg/apis/autoscaling/v2/defaults.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from labkit.hpa.errors import SpecError, choice, inside
from labkit.hpa.quantities import approximate, quantity, thousandths
from labkit.hpa.spec import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    SOURCES,
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
FIELDS: Final = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def from_manifest(source: Mapping[str, Any] | str | Path, controller: Controller | None = None) -> HpaSpec:
    """The spec of an autoscaling/v2 (or v1) object, given as a dict, as YAML, or as a file's path.

    Of a YAML with several documents, the one HorizontalPodAutoscaler is taken.

    Raises:
        SpecError: not such an object, or a value that the API server would refuse; `.field` names it.
    """
    document = _document(source)
    spec = _mapping("spec", document.get("spec"))
    metadata = document.get("metadata") or {}
    built = inside("spec", lambda: _spec(spec, metadata, str(document.get("apiVersion"))))
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
    return found[0]


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(field, f"found {value!r}", "Give an object with fields.")
    return value


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(field, f"found {value!r}", "Give a list.")
    return value


def _spec(spec: Mapping[str, Any], metadata: Mapping[str, Any], version: str) -> HpaSpec:
    if spec.get("maxReplicas") is None:
        raise SpecError("maxReplicas", "is missing", "Give a whole number of at least 1.")
    reference = _mapping("scaleTargetRef", spec.get("scaleTargetRef") or {})
    least = spec.get("minReplicas")
    behavior = spec.get("behavior")
    return HpaSpec(
        max_replicas=spec["maxReplicas"],
        min_replicas=1 if least is None else least,
        metrics=_metrics(spec, version),
        behavior=None if behavior is None else inside("behavior", lambda: _behavior(behavior)),
        name=metadata.get("name", "hpa"),
        namespace=metadata.get("namespace", "default"),
        target_kind=reference.get("kind", "Deployment"),
        target_name=reference.get("name", ""),
        target_api_version=reference.get("apiVersion", "apps/v1"),
    )


def _metrics(spec: Mapping[str, Any], version: str) -> tuple[Metric, ...]:
    percent = spec.get("targetCPUUtilizationPercentage")
    if version == "autoscaling/v1" and percent is not None:
        return (inside("targetCPUUtilizationPercentage", lambda: cpu_utilization(percent)),)
    entries = _list("metrics", spec.get("metrics") or [])
    built = []
    for i, entry in enumerate(entries):
        built.append(inside(f"metrics[{i}]", lambda e=entry: _metric(e)))  # type: ignore[misc]
    return tuple(built) or default_metrics()


def _metric(entry: Any) -> Metric:
    source = choice("type", _mapping("", entry).get("type"), SOURCES)
    name = FIELDS[source]
    body = _mapping(name, entry.get(name))
    return inside(name, lambda: _metric_body(source, body))


def _metric_body(source: str, body: Mapping[str, Any]) -> Metric:
    target = _mapping("target", body.get("target"))
    described = body.get("describedObject") or {}
    identifier = body if source in ("Resource", "ContainerResource") else body.get("metric") or {}
    return Metric(
        source,
        str(identifier.get("name") or ""),
        inside("target", lambda: _target(target)),
        container=body.get("container", ""),
        object_kind=described.get("kind", ""),
        object_name=described.get("name", ""),
    )


def _target(target: Mapping[str, Any]) -> Target:
    values = {}
    for name in ("averageValue", "value"):
        given = target.get(name)
        values[name] = None if given is None else thousandths(name, given)
    return Target(
        target.get("type", ""), target.get("averageUtilization"), values["averageValue"], values["value"]
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
    body = _mapping("", entry)
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
    metadata = {"name": spec.name, "namespace": spec.namespace}
    return {"apiVersion": "autoscaling/v2", "kind": KIND, "metadata": metadata, "spec": body}


def to_yaml(spec: HpaSpec) -> str:
    """`to_manifest` as YAML, in the usual order of fields."""
    text: str = yaml.safe_dump(to_manifest(spec), sort_keys=False)
    return text


def _metric_entry(metric: Metric) -> dict[str, Any]:
    target: dict[str, Any] = {"type": metric.target.type}
    if metric.target.average_utilization is not None:
        target["averageUtilization"] = metric.target.average_utilization
    if metric.target.average_value is not None:
        target["averageValue"] = quantity(metric.target.average_value, metric.name)
    if metric.target.value is not None:
        target["value"] = quantity(metric.target.value, metric.name)
    if metric.source in ("Resource", "ContainerResource"):
        body: dict[str, Any] = {"name": metric.name, "target": target}
        if metric.container:
            body["container"] = metric.container
    else:
        body = {"metric": {"name": metric.name}, "target": target}
        if metric.source == "Object":
            body["describedObject"] = {"kind": metric.object_kind, "name": metric.object_name}
    return {"type": metric.source, FIELDS[metric.source]: body}


def _rules_entry(rules: ScalingRules) -> dict[str, Any]:
    entry: dict[str, Any] = {"selectPolicy": rules.select}
    if rules.window_seconds is not None:
        entry["stabilizationWindowSeconds"] = rules.window_seconds
    if rules.tolerance is not None:
        entry["tolerance"] = quantity(round(rules.tolerance * 1000))
    entry["policies"] = [
        {"type": p.type, "value": p.value, "periodSeconds": p.period_seconds} for p in rules.policies
    ]
    return entry
