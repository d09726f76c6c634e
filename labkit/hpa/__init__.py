"""The horizontal pod autoscaler, understood: an exact model, a simulator, and explanations.

`decide` is one round of the controller of Kubernetes v1.37; `from_manifest` reads what it is told.
"""

from labkit.hpa import workload
from labkit.hpa.behavior import History
from labkit.hpa.calculator import Proposal
from labkit.hpa.decision import Decision, Observation, State, decide
from labkit.hpa.errors import (
    HpaError,
    MetricUnavailable,
    ObservationError,
    SelectorFault,
    ServiceError,
    SpecError,
    TraceError,
)
from labkit.hpa.manifest import from_manifest, to_manifest, to_yaml
from labkit.hpa.pods import Pod, PodMetric
from labkit.hpa.scenario import Pipeline, Scenario, Service
from labkit.hpa.simulate import Run, simulate, sweep
from labkit.hpa.spec import (
    Behavior,
    Controller,
    HpaSpec,
    Metric,
    Policy,
    ScalingRules,
    Target,
    cpu_utilization,
)
from labkit.hpa.vectors import replay, replicas_for_resource

__all__ = [
    "Behavior",
    "Controller",
    "Decision",
    "History",
    "HpaError",
    "HpaSpec",
    "Metric",
    "MetricUnavailable",
    "Observation",
    "ObservationError",
    "Pipeline",
    "Pod",
    "PodMetric",
    "Policy",
    "Proposal",
    "Run",
    "ScalingRules",
    "Scenario",
    "SelectorFault",
    "Service",
    "ServiceError",
    "SpecError",
    "State",
    "Target",
    "TraceError",
    "cpu_utilization",
    "decide",
    "from_manifest",
    "replay",
    "replicas_for_resource",
    "simulate",
    "sweep",
    "to_manifest",
    "to_yaml",
    "workload",
]
