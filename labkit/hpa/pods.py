"""Pods and their metrics as the autoscaler sees them, and how it sorts and sums them.

Behaviour of Kubernetes v1.37: groupPods and calculateRequests in
pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labkit.hpa.errors import MetricUnavailable, ObservationError, number, whole
from labkit.hpa.gomath import int64, nanoseconds
from labkit.hpa.spec import Controller


@dataclass(frozen=True, slots=True)
class PodMetric:
    """One sample: `value` in thousandths (millicores for CPU), measured over `window_s`, `age_s` ago."""

    value: int
    age_s: float = 0.0
    window_s: float = 30.0

    def __post_init__(self) -> None:
        whole("value", self.value, -(2**63), 2**63 - 1, ObservationError)
        number("age_s", self.age_s, low=float("-inf"), kind=ObservationError)
        number("window_s", self.window_s, kind=ObservationError)


@dataclass(frozen=True, slots=True)
class Pod:
    """What decides how a pod counts.

    Args:
        ready: status of the Ready condition; None where the pod has none yet, "Unknown" as such.
        ready_age_s: seconds since that status last changed.
        age_s: seconds since status.startTime; None where no kubelet has accepted the pod yet.
        requests: container name → resource → thousandths; sidecar containers included.
        pod_requests: resource → thousandths, where the pod sets requests for itself.
    """

    name: str
    phase: str = "Running"
    deleting: bool = False
    ready: bool | str | None = True
    ready_age_s: float = 0.0
    age_s: float | None = 0.0
    requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pod_requests: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.ready not in (True, False, None, "Unknown"):
            raise ObservationError("ready", f"found {self.ready!r}", "Give true, false, null or Unknown.")
        number("ready_age_s", self.ready_age_s, low=float("-inf"), kind=ObservationError)
        if self.age_s is not None:
            number("age_s", self.age_s, low=float("-inf"), kind=ObservationError)

    @property
    def serving(self) -> bool:
        """Running and Ready, whatever its metrics."""
        return self.phase == "Running" and self.ready is True


@dataclass(frozen=True, slots=True)
class Groups:
    """Pod names by how they count: with their metric, not ready, without a metric, not at all."""

    counted: frozenset[str]
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group(
    pods: Iterable[Pod], metrics: Mapping[str, PodMetric], resource: str, controller: Controller
) -> Groups:
    """Sort pods into groups; readiness matters for the resource `cpu` alone."""
    names: dict[str, list[str]] = {"counted": [], "unready": [], "missing": [], "ignored": []}
    for pod in pods:
        names[_group_of(pod, metrics.get(pod.name), resource, controller)].append(pod.name)
    return Groups(**{key: frozenset(found) for key, found in names.items()})


def _group_of(pod: Pod, metric: PodMetric | None, resource: str, controller: Controller) -> str:
    if pod.deleting or pod.phase == "Failed":
        return "ignored"
    if pod.phase == "Pending":
        return "unready"
    if metric is None:
        return "missing"
    if resource == "cpu" and _cpu_is_unusable(pod, metric, controller):
        return "unready"
    return "counted"


def _cpu_is_unusable(pod: Pod, metric: PodMetric, controller: Controller) -> bool:
    """Whether a CPU sample may show start-up work rather than load."""
    if pod.ready is None or pod.age_s is None:
        return True
    age, ready_age = nanoseconds(pod.age_s), nanoseconds(pod.ready_age_s)
    if age < nanoseconds(controller.cpu_initialization_period_s):
        window_began = nanoseconds(metric.age_s) + nanoseconds(metric.window_s)
        return pod.ready is False or window_began > ready_age
    never_ready = age < ready_age + nanoseconds(controller.initial_readiness_delay_s)
    return pod.ready is False and never_ready


def requests_of(pods: Iterable[Pod], resource: str, container: str = "") -> dict[str, int]:
    """Requests of `resource` per pod in thousandths; of one container where named.

    Raises:
        MetricUnavailable: a container has no such request, or there is no such container.
    """
    return {pod.name: _request(pod, resource, container) for pod in pods}


def _request(pod: Pod, resource: str, container: str) -> int:
    if pod.pod_requests and not container:
        if resource not in pod.pod_requests:
            raise MetricUnavailable(f"missing pod-level request for {resource} in Pod {pod.name}")
        return pod.pod_requests[resource]
    if container and container not in pod.requests:
        raise MetricUnavailable(f"container {container} not found in Pod {pod.name}")
    total = 0
    for name, requests in pod.requests.items():
        if container not in ("", name):
            continue
        if resource not in requests:
            raise MetricUnavailable(f"missing request for {resource} in container {name} of Pod {pod.name}")
        total = int64(total + requests[resource])
    return total
