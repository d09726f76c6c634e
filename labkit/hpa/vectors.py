"""The model on recorded cases: dicts in the form in which upstream's own answers are kept.

A `resource` case is one computation for CPU utilization, a `sequence` case a series of recommendations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from labkit.hpa.behavior import History
from labkit.hpa.calculator import Fleet, Tolerance, propose
from labkit.hpa.decision import Observation, State, decide
from labkit.hpa.errors import HpaError, MetricUnavailable, ObservationError, inside, number, whole
from labkit.hpa.manifest import rules_from
from labkit.hpa.pods import Pod, PodMetric
from labkit.hpa.spec import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    Behavior,
    Controller,
    HpaSpec,
    Metric,
    Target,
    cpu_utilization,
)

Case = Mapping[str, Any]


def replicas_for_resource(case: Case) -> tuple[int | None, int | None, str]:
    """(replicas, utilization in whole per cent, "") or (None, None, cause of the error).

    Args:
        case: `current_replicas`, `target_utilization_percent`, `tolerance_up`, `tolerance_down`,
            `cpu_initialization_period_s`, `initial_readiness_delay_s`, and `pods`: a list of `phase`,
            `deleting`, `ready` (null: no such condition), `ready_transition_age_s`, `start_age_s`,
            `request_millicores` (0: none), `usage_millicores` (null: no metric), `metric_age_s`,
            `metric_window_s`. Pods are called p0, p1 …, their container c.

    Raises:
        HpaError: a field is missing or has an unusable value; `.field` names it.
    """
    metric = _named("target_utilization_percent", case, cpu_utilization)
    tolerance = Tolerance(
        number("tolerance_down", _get(case, "tolerance_down"), kind=ObservationError),
        number("tolerance_up", _get(case, "tolerance_up"), kind=ObservationError),
    )
    controller = Controller(
        cpu_initialization_period_s=_get(case, "cpu_initialization_period_s"),
        initial_readiness_delay_s=_get(case, "initial_readiness_delay_s"),
    )
    current = whole("current_replicas", _get(case, "current_replicas"), 0, kind=ObservationError)
    found = [inside(f"pods[{i}]", _reader(i, pod)) for i, pod in enumerate(_get(case, "pods"))]
    pods = [pod for pod, _ in found]
    reading = {pod.name: sample for pod, sample in found if sample is not None}
    try:
        proposal = propose(metric, reading, Fleet(current, current, pods), tolerance, controller)
    except MetricUnavailable as failure:
        return None, None, failure.message
    return proposal.replicas, proposal.utilization, ""


def _reader(index: int, given: Case) -> Callable[[], tuple[Pod, PodMetric | None]]:
    return lambda: _pod(f"p{index}", given)


def _pod(name: str, given: Case) -> tuple[Pod, PodMetric | None]:
    request, usage = given.get("request_millicores"), _get(given, "usage_millicores")
    requests = {}
    if request is not None and whole("request_millicores", request, 0, 2**63 - 1, ObservationError):
        requests = {"cpu": int(request)}
    pod = Pod(
        name,
        phase=_get(given, "phase"),
        deleting=bool(_get(given, "deleting")),
        ready=_get(given, "ready"),
        ready_age_s=_age(given, "ready_transition_age_s") or 0.0,
        age_s=_age(given, "start_age_s"),
        requests={"c": requests},
    )
    age, window = _age(given, "metric_age_s"), _age(given, "metric_window_s")
    if usage is None:
        return pod, None
    whole("usage_millicores", usage, 0, 2**63 - 1, ObservationError)
    return pod, PodMetric(int(usage), age or 0.0, window or 0.0)


def _age(given: Case, field: str) -> float | None:
    """Seconds, which may lie in the future (clocks differ); null where the thing does not exist."""
    value = _get(given, field)
    return None if value is None else number(field, value, float("-inf"), kind=ObservationError)


def replay(case: Case) -> list[int]:
    """Replicas after each step of a series of recommendations.

    Args:
        case: `min_replicas`, `max_replicas`, `start_replicas` (also the first recommendation, at time
            zero), `downscale_stabilization_s`, `scale_up` and `scale_down` (as in `spec.behavior`; both
            null: built-in behaviour), and `steps`: a list of `dt_s` and `recommendation`.

    Raises:
        HpaError: a field is missing or has an unusable value; `.field` names it.
    """
    up, down = case.get("scale_up"), case.get("scale_down")
    behavior = None
    if up is not None or down is not None:
        behavior = Behavior(
            inside("scale_up", lambda: replace(rules_from(up, DEFAULT_SCALE_UP), tolerance=None)),
            inside("scale_down", lambda: replace(rules_from(down, DEFAULT_SCALE_DOWN), tolerance=None)),
        )
    spec = _limits(case, behavior)
    controller = Controller(0.1, 0.0, downscale_stabilization_s=_get(case, "downscale_stabilization_s"))
    replicas = whole("start_replicas", _get(case, "start_replicas"), 0, kind=ObservationError)
    now, state, series = 0.0, State(History().started(replicas, 0)), []
    for i, step in enumerate(_get(case, "steps")):
        now += number(f"steps[{i}].dt_s", _get(step, "dt_s"), kind=ObservationError)
        wanted = whole(f"steps[{i}].recommendation", _get(step, "recommendation"), 0, kind=ObservationError)
        decision = decide(spec, Observation(now, replicas, (), ([wanted * 1000],)), state, controller)
        replicas, state = decision.replicas, decision.state
        series.append(replicas)
    return series


def _limits(case: Case, behavior: Behavior | None) -> HpaSpec:
    """A spec whose metric, one per pod, asks for exactly the recommended count."""
    names = {"maxReplicas": "max_replicas", "minReplicas": "min_replicas"}
    least, most = _get(case, "min_replicas"), _get(case, "max_replicas")
    given = Metric("External", "recommendation", Target("AverageValue", average_value=1000))
    try:
        return HpaSpec(most, least, (given,), behavior)
    except HpaError as error:
        raise type(error)(names[error.field], error.problem, error.hint) from None


def _get(case: Case, field: str) -> Any:
    if field not in case:
        raise ObservationError(field, "is missing", "Give it; see the function's description.")
    return case[field]


def _named(field: str, case: Case, build: Callable[[Any], Any]) -> Any:
    """Build from a field whose own name replaces the one inside the error."""
    value = _get(case, field)
    try:
        return build(value)
    except HpaError as error:
        raise type(error)(field, error.problem, error.hint) from None
