"""One round of the controller: metrics in, replica count and reasons out.

Behaviour of Kubernetes v1.37: reconcileAutoscaler and computeReplicasForMetrics in
pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from labkit import boxes
from labkit.hpa import words
from labkit.hpa.behavior import History, normalize
from labkit.hpa.calculator import Fleet, Proposal, Reading, Tolerance, propose
from labkit.hpa.errors import MetricUnavailable, ObservationError, SelectorFault, number, whole
from labkit.hpa.gomath import nanoseconds
from labkit.hpa.pods import Pod
from labkit.hpa.spec import Controller, HpaSpec


@dataclass(frozen=True, slots=True)
class Observation:
    """What the controller finds when a round begins.

    Args:
        now_s: time of the round in seconds, on any clock that goes on from round to round.
        replicas: the scale target's spec.replicas.
        pods: pods that its selector matches.
        readings: one per metric of the spec, in its order.
        status_replicas: the scale target's status.replicas; the same as `replicas` where None.
        fault: what is wrong with the pods' selector, such as a second autoscaler that has the same pods.
    """

    now_s: float
    replicas: int
    pods: Sequence[Pod]
    readings: Sequence[Reading]
    status_replicas: int | None = None
    fault: SelectorFault | None = None

    def __post_init__(self) -> None:
        number("now_s", self.now_s, low=float("-inf"), kind=ObservationError)
        whole("replicas", self.replicas, 0, kind=ObservationError)
        if self.status_replicas is not None:
            whole("status_replicas", self.status_replicas, 0, kind=ObservationError)


@dataclass(frozen=True, slots=True)
class State:
    """What lasts from round to round; `scaled_to_zero` is the HPA's condition of that name."""

    history: History = field(default_factory=History)
    scaled_to_zero: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a round.

    Args:
        replicas: the count after this round.
        before: the count it began with.
        recommendation: what the metrics asked for; None where they were not asked or gave nothing.
        proposals: per metric, its proposal or why it has none.
        conditions: condition type → reason, as the HPA's status would carry them.
        reasons: why, in sentences with numbers, in the order in which things were decided.
        state: to hand to the next round.
    """

    replicas: int
    before: int
    recommendation: int | None
    proposals: tuple[Proposal | MetricUnavailable, ...]
    conditions: dict[str, str]
    reasons: tuple[str, ...]
    state: State

    @property
    def error(self) -> str:
        """Cause why no metric could be used, or ""."""
        failed = [p for p in self.proposals if isinstance(p, MetricUnavailable)]
        return failed[0].message if failed and self.recommendation is None else ""

    def _repr_html_(self) -> str:
        change = (
            f"{self.before} → {self.replicas}" if self.before != self.replicas else f"stays {self.before}"
        )
        return boxes.box(
            f"Replicas: {change}",
            boxes.bullets(self.reasons),
            boxes.table(("condition", "reason"), self.conditions.items()),
            boxes.line(self.error, warning=True),
            state="failed" if self.error else "ok",
        )


def decide(
    spec: HpaSpec,
    observed: Observation,
    state: State | None = None,
    controller: Controller | None = None,
) -> Decision:
    """Decide the replica count as the controller would in one round.

    Args:
        state: what the round before returned; None in the first.

    Raises:
        ObservationError: the readings do not match the spec's metrics.
    """
    state, controller = state or State(), controller or Controller()
    if len(observed.readings) != len(spec.metrics):
        problem = f"found {len(observed.readings)}, the spec has {len(spec.metrics)} metrics"
        raise ObservationError("readings", problem, "Give one reading per metric, in the spec's order.")
    history = state.history.started(observed.replicas, nanoseconds(observed.now_s))
    return _Round(spec, observed, replace(state, history=history), controller).decide()


class _Round:
    """The parts of one decision share what was observed and the story told so far."""

    def __init__(self, spec: HpaSpec, observed: Observation, state: State, controller: Controller) -> None:
        self.spec, self.observed, self.state, self.controller = spec, observed, state, controller
        self.before = observed.replicas
        self.story: list[str] = []
        self.conditions = {"AbleToScale": "SucceededGetScale"}
        self.proposals: tuple[Proposal | MetricUnavailable, ...] = ()
        marked_zero = controller.scale_to_zero and state.scaled_to_zero
        self.may_leave_zero = marked_zero and (spec.has_object_or_external or spec.min_replicas != 0)
        self.marked_zero = marked_zero

    def decide(self) -> Decision:
        spec, before = self.spec, self.before
        if before == 0 and not self.may_leave_zero:
            self.conditions["ScalingActive"] = "ScalingDisabled"
            self.story.append("The target has 0 replicas, set by someone else: autoscaling is off.")
            return self._result(0)
        if before > spec.max_replicas:
            self.story.append(words.bounded(before, spec.max_replicas, "maxReplicas"))
            return self._scaled(spec.max_replicas)
        if 0 < before < spec.min_replicas:
            self.story.append(words.bounded(before, spec.min_replicas, "minReplicas"))
            return self._scaled(spec.min_replicas)
        wanted = self._recommendation()
        return self._result(before) if wanted is None else self._normalized(wanted)

    def _recommendation(self) -> int | None:
        """The largest proposal; None where too little is known to act on."""
        fault = self.observed.fault
        if fault is not None:
            self.conditions["ScalingActive"] = fault.reason
            self.story.append(f"{fault.reason}: {fault.message}.")
            return None
        self.proposals = tuple(self._proposal(i) for i in range(len(self.spec.metrics)))
        pairs = list(zip(self.spec.metrics, self.proposals, strict=True))
        wanted, leader, failed = 0, "", 0
        for metric, proposal in pairs:
            if isinstance(proposal, MetricUnavailable):
                failed += 1
                self.story.append(f"{metric.label} cannot be used: {proposal.message}.")
            elif wanted == 0 or proposal.replicas > wanted:
                wanted, leader = proposal.replicas, metric.label
        for proposal in self.proposals:
            if isinstance(proposal, Proposal):
                self.story.extend(proposal.reasons)
        if failed == len(self.proposals) or (failed and wanted < self.before):
            source = next(m for m, p in pairs if isinstance(p, MetricUnavailable)).source
            self.conditions["ScalingActive"] = f"FailedGet{source}Metric"
            if failed < len(self.proposals):
                self.story.append(f"The others would scale down to {wanted}; with one missing: no change.")
            return None
        self.conditions["ScalingActive"] = "ValidMetricFound"
        if len(self.proposals) > 1:
            self.story.append(f"The largest proposal counts: {wanted}, from {leader}.")
        return max(wanted, 0)

    def _proposal(self, index: int) -> Proposal | MetricUnavailable:
        observed = self.observed
        there = observed.replicas if observed.status_replicas is None else observed.status_replicas
        fleet = Fleet(observed.replicas, there, observed.pods)
        tolerance = Tolerance(*self.spec.tolerances(self.controller))
        try:
            return propose(
                self.spec.metrics[index], observed.readings[index], fleet, tolerance, self.controller
            )
        except MetricUnavailable as failure:
            return failure

    def _normalized(self, wanted: int) -> Decision:
        spec, now_s = self.spec, self.observed.now_s
        outcome = normalize(spec, self.before, wanted, self.state.history, now_s, self.controller)
        self.state = replace(self.state, history=outcome.history)
        self.story.extend(outcome.reasons)
        self.conditions |= {"AbleToScale": outcome.able, "ScalingLimited": outcome.limited}
        replicas = outcome.replicas
        if self.before == 0 and spec.min_replicas > 0 and replicas < spec.min_replicas:
            self.story.append(words.bounded(replicas, spec.min_replicas, "minReplicas"))
            replicas = spec.min_replicas
        if replicas == self.before:
            return self._result(replicas, wanted)
        return self._scaled(replicas, wanted)

    def _scaled(self, replicas: int, wanted: int | None = None) -> Decision:
        """The round ends with a scaling, which is remembered."""
        now_ns = nanoseconds(self.observed.now_s)
        history = self.state.history.scaled(self.before, replicas, self.spec, now_ns)
        self.conditions["AbleToScale"] = "SucceededRescale"
        to_zero = replicas == 0 and self.spec.min_replicas == 0 and self.spec.has_object_or_external
        self.state = State(history, self.controller.scale_to_zero and to_zero)
        return self._result(replicas, wanted)

    def _result(self, replicas: int, wanted: int | None = None) -> Decision:
        changed = "stays at" if replicas == self.before else f"goes from {self.before} to"
        self.story.append(f"The replica count {changed} {replicas}.")
        return Decision(
            replicas,
            self.before,
            wanted,
            self.proposals,
            self.conditions,
            tuple(self.story),
            self.state,
        )
