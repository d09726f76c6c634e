"""API objects (dicts) to what the model takes: pods, samples, readings, the controller's flags.

Behaviour of Kubernetes v1.37: pkg/controller/podautoscaler/metrics/client.go (which samples count) and
component-helpers/resource/helpers.go (requests of a pod that sets its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from labkit import durations
from labkit.hpa.calculator import Reading
from labkit.hpa.errors import MetricUnavailable, ObservationError, SpecError, inside
from labkit.hpa.pods import Pod, PodMetric
from labkit.hpa.quantities import thousandths
from labkit.hpa.spec import Controller, HpaSpec, Metric

Object = Mapping[str, Any]
CUSTOM_WINDOW_S: Final = 60.0
TRUE: Final = ("1", "t", "true")
FLAGS: Final = {
    "--horizontal-pod-autoscaler-sync-period": "sync_period_s",
    "--horizontal-pod-autoscaler-tolerance": "tolerance",
    "--horizontal-pod-autoscaler-downscale-stabilization": "downscale_stabilization_s",
    "--horizontal-pod-autoscaler-cpu-initialization-period": "cpu_initialization_period_s",
    "--horizontal-pod-autoscaler-initial-readiness-delay": "initial_readiness_delay_s",
}


def timestamp(field: str, text: Any) -> datetime:
    """A time of the API, such as 2030-01-31T12:00:00Z."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        raise ObservationError(
            field, f"found {text!r}", "Give a time such as 2030-01-31T12:00:00Z."
        ) from None


def seconds(field: str, text: Any) -> float:
    """A duration as Go writes it: `15s`, `1m30s`, `10.5s`, `2h0m0s`, `500ms`; "" is none."""
    try:
        return durations.seconds(str(text)) if text else 0.0
    except ValueError:
        raise ObservationError(field, f"found {text!r}", "Give a duration such as 15s.") from None


def pod(obj: Object, now: datetime) -> Pod:
    """A v1 Pod as the autoscaler counts it at `now`."""
    meta, spec, status = (obj.get(part) or {} for part in ("metadata", "spec", "status"))
    ready = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), None)
    state = {"True": True, "False": False}.get(ready["status"], "Unknown") if ready else None
    changed = ready.get("lastTransitionTime") if ready else None
    started = status.get("startTime")
    return Pod(
        meta.get("name", ""),
        status.get("phase", ""),
        meta.get("deletionTimestamp") is not None,
        state,
        (now - timestamp("lastTransitionTime", changed)).total_seconds() if changed else 0.0,
        (now - timestamp("startTime", started)).total_seconds() if started else None,
        {c["name"]: _requests(c) for c in (*(spec.get("containers") or []), *_sidecars(spec))},
        _pod_requests(spec),
    )


def _sidecars(spec: Object) -> list[Object]:
    return [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]


def _requests(container: Object) -> dict[str, int]:
    given = (container.get("resources") or {}).get("requests") or {}
    return {name: thousandths(f"requests.{name}", q, ObservationError) for name, q in given.items()}


def _settable(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def _pod_requests(spec: Object) -> dict[str, int] | None:
    """Requests of a pod that sets its own; what it leaves out is what its containers need together."""
    own = _requests(spec)
    if not any(_settable(name) for name in own):
        return None
    total: dict[str, int] = {}
    for container in spec.get("containers") or []:
        _add(total, _requests(container))
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or []:
        step = dict(beside)
        _add(step, _requests(container))
        if container.get("restartPolicy") == "Always":
            _add(total, _requests(container))
            beside = step
        peak = {name: max(peak.get(name, 0), step.get(name, 0)) for name in {*peak, *step}}
    total = {name: max(total.get(name, 0), peak.get(name, 0)) for name in {*total, *peak}}
    total |= {name: value for name, value in own.items() if _settable(name)}
    overhead = spec.get("overhead") or {}
    _add(total, {name: thousandths(name, q, ObservationError) for name, q in overhead.items()})
    return total


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def samples(
    items: Iterable[Object], resource: str, now: datetime, container: str = ""
) -> dict[str, PodMetric]:
    """PodMetrics objects (metrics.k8s.io) to samples by pod; a pod whose sample is incomplete is left out."""
    found = {}
    for item in items:
        parts = [c for c in item.get("containers") or [] if container in ("", c.get("name"))]
        usage = [(c.get("usage") or {}).get(resource) for c in parts[: 1 if container else None]]
        if usage and None not in usage:
            value = sum(thousandths(f"usage.{resource}", q, ObservationError) for q in usage)
            age = (now - timestamp("timestamp", item.get("timestamp"))).total_seconds()
            name = item["metadata"]["name"]
            found[name] = PodMetric(value, age, seconds("window", item.get("window", "0s")))
    return found


def reading(metric: Metric, answer: Object | MetricUnavailable, now: datetime) -> Reading:
    """What a metrics API answered for one metric (a list object), as the model reads it."""
    if isinstance(answer, MetricUnavailable):
        return answer
    items: Sequence[Object] = answer.get("items") or []
    if metric.source in ("Resource", "ContainerResource"):
        if not items:
            return MetricUnavailable("no metrics returned from resource metrics API")
        return samples(items, metric.name, now, metric.container)
    if metric.source == "Object" and len(items) != 1:
        problem = f"the custom metrics API server returned {len(items)} results when we asked for exactly one"
        return MetricUnavailable(f"unable to fetch metrics from custom metrics API: {problem}")
    if not items:
        api = "external" if metric.source == "External" else "custom"
        return MetricUnavailable(f"no metrics returned from {api} metrics API")
    values = [thousandths("value", item.get("value"), ObservationError) for item in items]
    if metric.source == "External":
        return values
    if metric.source == "Object":
        return values[0]
    return {
        item["describedObject"]["name"]: PodMetric(
            value,
            (now - timestamp("timestamp", item.get("timestamp"))).total_seconds(),
            # v1beta2 calls it windowSeconds, v1beta1 window
            float(item.get("windowSeconds") or item.get("window") or CUSTOM_WINDOW_S),
        )
        for item, value in zip(items, values, strict=True)
    }


def readings(spec: HpaSpec, answers: Sequence[Object | MetricUnavailable], now: datetime) -> list[Reading]:
    """One reading per metric of the spec.

    Raises:
        ObservationError: an answer holds a value that cannot be; `.field` says which.
    """
    pairs = enumerate(zip(spec.metrics, answers, strict=True))
    return [_inside(i, metric, answer, now) for i, (metric, answer) in pairs]


def _inside(i: int, metric: Metric, answer: Object | MetricUnavailable, now: datetime) -> Reading:
    return inside(f"metrics[{i}]", lambda: reading(metric, answer, now))


def controller(argv: Sequence[str]) -> Controller:
    """The autoscaler's flags in a kube-controller-manager command line; upstream's defaults for the rest.

    Flags are read as upstream reads them: `--flag=value` or `--flag value`, `_` is as good as `-`, and the
    last one counts.
    """
    found: dict[str, float] = {}
    gates: dict[str, bool] = {}
    for place, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        flag = name.replace("_", "-")
        value = value if equals else "".join(argv[place + 1 : place + 2])
        if flag == "--feature-gates":
            pairs = (each.partition("=") for each in value.split(","))
            gates |= {gate.strip(): given.strip().lower() in TRUE for gate, _, given in pairs}
        elif flag in FLAGS:
            try:
                found[FLAGS[flag]] = float(value) if "tolerance" in flag else seconds(flag, value)
            except ValueError:
                raise SpecError(flag, f"found {value!r}", "Give a number.") from None
    return Controller(**found, scale_to_zero=gates.get("HPAScaleToZero", gates.get("AllBeta", True)))
