"""What an autoscaler is told: its spec (autoscaling/v2) and the controller's flags, as checked values.

Field names of errors are those of the API. Limits are those of Kubernetes v1.37's
pkg/apis/autoscaling/validation, defaults those of pkg/apis/autoscaling/v2/defaults.go and
pkg/controller/podautoscaler/config/v1alpha1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from labkit.hpa.errors import SpecError, choice, number, whole

MAX_WINDOW_SECONDS: Final = 3600
MAX_PERIOD_SECONDS: Final = 1800
TARGETS: Final = ("Utilization", "AverageValue", "Value")
SOURCES: Final = ("Resource", "ContainerResource", "Pods", "Object", "External")


@dataclass(frozen=True, slots=True)
class Controller:
    """Flags of kube-controller-manager that the autoscaler obeys; times in seconds.

    `scale_to_zero` is the feature gate HPAScaleToZero, on by default in v1.37.
    """

    sync_period_s: float = 15.0
    tolerance: float = 0.1
    downscale_stabilization_s: float = 300.0
    cpu_initialization_period_s: float = 300.0
    initial_readiness_delay_s: float = 30.0
    scale_to_zero: bool = True

    def __post_init__(self) -> None:
        number("sync_period_s", self.sync_period_s, above=True)
        number("tolerance", self.tolerance)
        number("downscale_stabilization_s", self.downscale_stabilization_s)
        number("cpu_initialization_period_s", self.cpu_initialization_period_s)
        number("initial_readiness_delay_s", self.initial_readiness_delay_s)


@dataclass(frozen=True, slots=True)
class Policy:
    """How fast replicas may change: `value` pods (or per cent) within `period_seconds`."""

    type: str
    value: int
    period_seconds: int

    def __post_init__(self) -> None:
        choice("type", self.type, ("Pods", "Percent"))
        whole("value", self.value, 1)
        whole("periodSeconds", self.period_seconds, 1, MAX_PERIOD_SECONDS)

    def __str__(self) -> str:
        unit = "%" if self.type == "Percent" else ("pod" if self.value == 1 else "pods")
        return f"{self.value} {unit} per {self.period_seconds} s"


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction of `spec.behavior`.

    Args:
        policies: at least one.
        select: Max (the policy that allows most), Min (least), or Disabled (never in this direction).
        window_seconds: stabilization window; None in `scale_down` means the controller's flag.
        tolerance: overrides the controller's tolerance in this direction.
    """

    policies: tuple[Policy, ...]
    select: str = "Max"
    window_seconds: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not self.policies:
            raise SpecError("policies", "the list is empty", "Give at least one policy, or leave it out.")
        choice("selectPolicy", self.select, ("Max", "Min", "Disabled"))
        if self.window_seconds is not None:
            whole("stabilizationWindowSeconds", self.window_seconds, 0, MAX_WINDOW_SECONDS)
        if self.tolerance is not None:
            number("tolerance", self.tolerance)


DEFAULT_SCALE_UP: Final = ScalingRules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), "Max", 0)
DEFAULT_SCALE_DOWN: Final = ScalingRules((Policy("Percent", 100, 15),), "Max")


@dataclass(frozen=True, slots=True)
class Behavior:
    """`spec.behavior`: the rules of both directions, defaults filled in."""

    scale_up: ScalingRules = DEFAULT_SCALE_UP
    scale_down: ScalingRules = DEFAULT_SCALE_DOWN


@dataclass(frozen=True, slots=True)
class Target:
    """Target of a metric; `value` and `average_value` in thousandths (millicores for CPU).

    `written` has the quantities as a manifest gave them, by field, so that what is finer is not lost.
    """

    type: str
    average_utilization: int | None = None
    average_value: int | None = None
    value: int | None = None
    written: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        choice("type", self.type, TARGETS)
        if self.average_utilization is not None:
            whole("averageUtilization", self.average_utilization, 1)
        for name, given in (("averageValue", self.average_value), ("value", self.value)):
            if given is not None:
                whole(name, given, 1, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of `spec.metrics`.

    Args:
        source: Resource, ContainerResource, Pods, Object or External.
        name: resource name (cpu, memory) or metric name.
        container: for ContainerResource.
        object_kind: kind of the described object, for Object.
        object_name: its name.
        object_api_version: its group and version.
        selector: a LabelSelector of series, for Pods, Object and External.
    """

    source: str
    name: str
    target: Target
    container: str = ""
    object_kind: str = ""
    object_name: str = ""
    object_api_version: str = ""
    selector: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        choice("type", self.source, SOURCES)
        if not self.name:
            raise SpecError("name", "is missing", "Name the resource or metric.")
        if self.source == "ContainerResource" and not self.container:
            raise SpecError("container", "is missing", "Name the container to measure.")
        self._check_target()

    def _check_target(self) -> None:
        target, hint = self.target, "Set exactly one of them."
        if self.source in ("Resource", "ContainerResource"):
            given = (target.average_utilization, target.average_value)
            if given.count(None) != 1:
                place = "averageUtilization" if given.count(None) else "averageValue"
                raise SpecError(f"target.{place}", "needs either averageUtilization or averageValue", hint)
        elif self.source == "Pods" and target.average_value is None:
            raise SpecError("target.averageValue", "is missing", "Give the wanted average per pod.")
        elif self.source == "External" and (target.value, target.average_value).count(None) != 1:
            place = "averageValue" if target.value is None else "value"
            raise SpecError(f"target.{place}", "needs either value or averageValue", hint)
        elif self.source == "Object" and target.value is None and target.average_value is None:
            raise SpecError("target.averageValue", "needs value or averageValue", hint)

    @property
    def label(self) -> str:
        """How sentences call this metric: `cpu`, `cpu of container app`, `queue_depth of Ingress web` …"""
        if self.source == "ContainerResource":
            return f"{self.name} of container {self.container}"
        if self.source == "Object":
            return f"{self.name} of {self.object_kind} {self.object_name}".rstrip()
        return f"{'external metric ' if self.source == 'External' else ''}{self.name}"


def cpu_utilization(percent: int) -> Metric:
    """The usual metric: average CPU use in per cent of the pods' requests."""
    return Metric("Resource", "cpu", Target("Utilization", average_utilization=percent))


def default_metrics() -> tuple[Metric, ...]:
    """What the API server fills in where no metric is given: 80 % of the CPU requests."""
    return (cpu_utilization(80),)


@dataclass(frozen=True, slots=True)
class HpaSpec:
    """A HorizontalPodAutoscaler's spec; `behavior=None` is the controller's built-in behaviour."""

    max_replicas: int
    min_replicas: int = 1
    metrics: tuple[Metric, ...] = field(default_factory=default_metrics)
    behavior: Behavior | None = None
    name: str = "hpa"
    namespace: str = "default"
    target_kind: str = "Deployment"
    target_name: str = ""
    target_api_version: str = "apps/v1"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        whole("maxReplicas", self.max_replicas, 1)
        whole("minReplicas", self.min_replicas, 0)
        if self.max_replicas < self.min_replicas:
            problem = f"found {self.max_replicas}, below minReplicas {self.min_replicas}"
            raise SpecError("maxReplicas", problem, "Raise maxReplicas or lower minReplicas.")
        if not self.metrics:
            raise SpecError("metrics", "the list is empty", "Give at least one metric.")
        if self.min_replicas == 0 and not self.has_object_or_external:
            hint = "Add an Object or External metric, or set minReplicas to 1."
            raise SpecError("metrics", "minReplicas 0 needs a metric that exists without pods", hint)

    @property
    def has_object_or_external(self) -> bool:
        """Whether some metric exists even with no pod running, as scaling to zero needs."""
        return any(metric.source in ("Object", "External") for metric in self.metrics)

    def tolerances(self, controller: Controller) -> tuple[float, float]:
        """Tolerance (down, up) as ratios: a usage ratio within 1 - down … 1 + up changes nothing."""
        down = up = controller.tolerance
        if self.behavior is not None:
            rules = self.behavior
            down = controller.tolerance if rules.scale_down.tolerance is None else rules.scale_down.tolerance
            up = controller.tolerance if rules.scale_up.tolerance is None else rules.scale_up.tolerance
        return down, up
