"""From one metric to a replica count.

Behaviour of Kubernetes v1.37: pkg/controller/podautoscaler/replica_calculator.go and
metrics/utilization.go. Where utilization is compared, it is the whole percentage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labkit.hpa import words
from labkit.hpa.errors import MetricUnavailable
from labkit.hpa.gomath import INT32_MAX, INT64_MAX, ceil32, ceil64, divide, int32, int64, quotient
from labkit.hpa.pods import Groups, Pod, PodMetric, group, requests_of
from labkit.hpa.spec import Controller, Metric

NO_PODS: Final = "no pods returned by selector while calculating replica count"
NO_METRICS: Final = "did not receive metrics for targeted pods (pods might be unready)"
NO_MATCH: Final = "no metrics returned matched known pods"

Reading = Mapping[str, PodMetric] | int | Sequence[int] | MetricUnavailable
"""What a metrics API answered: samples by pod name (Resource, ContainerResource, Pods), one value in
thousandths (Object), several (External), or why there is none."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A usage ratio within 1 - down … 1 + up changes nothing."""

    down: float
    up: float

    def holds(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Fleet:
    """The scale target as it is: replicas asked for, replicas there are, and the pods themselves."""

    spec_replicas: int
    status_replicas: int
    pods: Sequence[Pod]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one metric asks for.

    Args:
        replicas: the count it asks for, before limits of any kind.
        ratio: current use by target, as first measured.
        utilization: whole per cent of the requests, for utilization targets.
        average: thousandths per pod (per-pod targets, and beside a utilization).
        value: thousandths, for Value targets.
        reasons: how the count came about, a sentence each.
    """

    metric: Metric
    replicas: int
    ratio: float
    utilization: int | None = None
    average: int | None = None
    value: int | None = None
    reasons: tuple[str, ...] = ()


def propose(
    metric: Metric, reading: Reading, fleet: Fleet, tolerance: Tolerance, controller: Controller
) -> Proposal:
    """The replica count one metric asks for.

    Raises:
        MetricUnavailable: the metric gives none; the message is the cause in the controller's terms.
    """
    if isinstance(reading, MetricUnavailable):
        raise reading
    if metric.source in ("Object", "External"):
        assert isinstance(reading, int | Sequence)
        total = reading if isinstance(reading, int) else _sum(reading, metric.target.average_value is None)
        return _from_total(metric, total, fleet, tolerance)
    assert isinstance(reading, Mapping)
    return _Average(metric, reading, fleet, tolerance, controller).propose()


class _Average:
    """The two ways of averaging over pods: per cent of requests, or plain values."""

    def __init__(
        self,
        metric: Metric,
        reading: Mapping[str, PodMetric],
        fleet: Fleet,
        tolerance: Tolerance,
        controller: Controller,
    ) -> None:
        self.metric, self.fleet, self.tolerance = metric, fleet, tolerance
        resource = metric.name if metric.source != "Pods" else ""
        if not fleet.pods:
            raise MetricUnavailable(NO_PODS)
        self.groups: Groups = group(fleet.pods, reading, resource, controller)
        dropped = self.groups.ignored | self.groups.unready
        self.values = {name: sample.value for name, sample in reading.items() if name not in dropped}
        if not self.values:
            raise MetricUnavailable(NO_METRICS)
        self.percent = metric.target.average_utilization
        self.by_request = self.percent is not None and metric.source != "Pods"
        self.requests = requests_of(fleet.pods, resource, metric.container) if self.by_request else {}

    def propose(self) -> Proposal:
        ratio, current, average = self._measure(self.values)
        story = [words.measured(self.metric, current, average, len(self.groups.counted), ratio)]
        up_with_unready = bool(self.groups.unready) and ratio > 1.0
        if up_with_unready or self.groups.missing:
            replicas = self._rebalanced(ratio, up_with_unready, story)
        elif self.tolerance.holds(ratio):
            story.append(words.tolerated(ratio, self.tolerance.down, self.tolerance.up))
            replicas = self.fleet.spec_replicas
        else:
            replicas = ceil32(ratio * len(self.groups.counted))
            story.append(words.multiplied(ratio, len(self.groups.counted), replicas))
        utilization = current if self.by_request else None
        return Proposal(self.metric, replicas, ratio, utilization, average, None, tuple(story))

    def _measure(self, values: Mapping[str, int]) -> tuple[float, int, int]:
        """(ratio to the target, whole per cent or average, average in thousandths)."""
        if not self.by_request:
            average = quotient(int64(sum(values.values())), len(values))
            return divide(float(average), float(self.metric.target.average_value or 0)), average, average
        known = [name for name in values if name in self.requests]
        requested = int64(sum(self.requests[name] for name in known))
        if requested == 0:
            raise MetricUnavailable(NO_MATCH)
        used = int64(sum(values[name] for name in known))
        percent = int32(quotient(int64(used * 100), requested))
        return divide(float(percent), float(self.percent or 0)), percent, quotient(used, len(known))

    def _rebalanced(self, ratio: float, up_with_unready: bool, story: list[str]) -> int:
        """Count again with assumed values for pods that have none, erring against the change."""
        groups, stay = self.groups, self.fleet.spec_replicas
        values = dict(self.values)
        if ratio != 1.0 and groups.missing:
            values |= {name: 0 if ratio > 1.0 else self._full(name) for name in groups.missing}
            story.append(words.missing_assumed(len(groups.missing), ratio, self.percent))
        if up_with_unready:
            values |= dict.fromkeys(groups.unready, 0)
            story.append(words.unready_assumed(len(groups.unready)))
        again, _, _ = self._measure(values)
        if self.tolerance.holds(again):
            story.append(words.tolerated(again, self.tolerance.down, self.tolerance.up))
            return stay
        if (ratio < 1.0 < again) or (again < 1.0 < ratio):
            story.append(words.direction_lost(ratio, again))
            return stay
        replicas = ceil32(again * len(values))
        if (again < 1.0 and replicas > stay) or (again > 1.0 and replicas < stay):
            story.append(words.direction_lost(again, again, replicas, stay))
            return stay
        story.append(words.multiplied(again, len(values), replicas))
        return replicas

    def _full(self, name: str) -> int:
        """What a pod without a metric is assumed to use when the others call for fewer pods."""
        if not self.by_request:
            return self.metric.target.average_value or 0
        return quotient(int64(self.requests[name] * max(100, self.percent or 0)), 100)


def _sum(values: Sequence[int], saturate: bool) -> int:
    """Sum of external values, held at the top of 64 bits as the controller does in each mode."""
    total = 0
    for value in values:
        if saturate and value > 0 and total > INT64_MAX - value:
            return INT64_MAX
        total = int64(total + value)
        if not saturate and total < 0:
            return INT64_MAX
    return total


def _from_total(metric: Metric, total: int, fleet: Fleet, tolerance: Tolerance) -> Proposal:
    """Object and External metrics: one number for the whole fleet, or a share of it per pod."""
    target, external = metric.target, metric.source == "External"
    if target.average_value is not None and (external or target.type == "AverageValue"):
        return _per_pod(metric, total, target.average_value, fleet, tolerance)
    if target.value is None or not (external or target.type == "Value"):
        raise MetricUnavailable(
            "invalid object metric source: neither a value target nor an average value target was set"
        )
    ratio = float(total) / float(target.value)
    story = [words.total_measured(metric, total, target.value, ratio)]
    if fleet.spec_replicas == 0:
        replicas = ceil32(ratio)
        story.append(words.multiplied(ratio, 1, replicas))
    elif tolerance.holds(ratio):
        replicas = fleet.spec_replicas
        story.append(words.tolerated(ratio, tolerance.down, tolerance.up))
    else:
        if not fleet.pods:
            raise MetricUnavailable(f"unable to calculate ready pods: {NO_PODS}")
        ready = sum(pod.serving for pod in fleet.pods)
        replicas = INT32_MAX if ratio * ready > INT32_MAX else ceil32(ratio * ready)
        story.append(words.multiplied(ratio, ready, replicas))
    return Proposal(metric, replicas, ratio, value=total, reasons=tuple(story))


def _per_pod(metric: Metric, total: int, target: int, fleet: Fleet, tolerance: Tolerance) -> Proposal:
    there = fleet.status_replicas
    ratio = divide(float(total), float(target) * float(there))
    story = [words.share_measured(metric, total, there, target, ratio)]
    if tolerance.holds(ratio):
        replicas = there
        story.append(words.tolerated(ratio, tolerance.down, tolerance.up))
    else:
        wanted = float(total) / float(target)
        replicas = INT32_MAX if metric.source == "External" and wanted > INT32_MAX else ceil32(wanted)
        story.append(words.divided(total, target, replicas))
    average = None
    if there:  # Go divides floats and rounds up
        full = metric.source == "External" and float(total) >= float(INT64_MAX)
        average = INT64_MAX if full else ceil64(float(total) / float(there))
    return Proposal(metric, replicas, ratio, average=average, reasons=tuple(story))
