"""Why an autoscaler has its replica count, and what it would take to change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from labkit import boxes
from labkit.hpa import observe, words
from labkit.hpa.calculator import Fleet, Proposal, Reading, Tolerance, propose
from labkit.hpa.decision import Decision, Observation, State, decide
from labkit.hpa.errors import MetricUnavailable, SelectorFault
from labkit.hpa.manifest import from_manifest
from labkit.hpa.pods import Pod, PodMetric, requests_of
from labkit.hpa.spec import DEFAULT_SCALE_DOWN, DEFAULT_SCALE_UP, Controller, HpaSpec, Metric, ScalingRules

Object = Mapping[str, Any]
HINTS: Final = (
    ("missing request for", "Set resources.requests of that container: utilization is relative to it."),
    ("did not receive metrics", "Its pods are not Ready, or too young for a usable sample."),
    (
        "returned from resource metrics",
        "Does metrics-server run, and has it seen the pods twice?",
    ),
    ("resource metrics API", "No metrics API answers: kubectl get apiservices v1beta1.metrics.k8s.io"),
    ("custom metrics API", "A metrics adapter must serve it: kubectl get apiservices | grep custom.metrics"),
    ("external metrics API", "A metrics adapter must serve it: kubectl get apiservices | grep external"),
    (
        "no pods returned",
        "The target has no pods: see its events.",
    ),
    ("not found in Pod", "Correct the container's name in spec.metrics."),
)
FAILURES: Final = (("AbleToScale", "False"), ("ScalingActive", "False"))


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer in sentences.

    Args:
        headline: replicas now, and the limits.
        why: what led to the present count, latest decision first.
        grow: what it would take to get more replicas.
        shrink: what it would take to get fewer.
        problems: what keeps the autoscaler from working, with what to do.
        decision: the model's own round with the same facts.
        settings: the controller's flags that counted here, and where they come from.
    """

    headline: str
    why: tuple[str, ...]
    grow: str
    shrink: str
    problems: tuple[str, ...]
    decision: Decision
    settings: str = ""

    def __str__(self) -> str:
        lines = [self.headline, "", "Why:", *(f"  - {reason}" for reason in self.why)]
        if self.problems:
            lines += ["", "Problems:", *(f"  - {problem}" for problem in self.problems)]
        return "\n".join(
            [*lines, "", f"To grow: {self.grow}", f"To shrink: {self.shrink}", "", self.settings]
        )

    def _repr_html_(self) -> str:
        return boxes.box(
            self.headline,
            boxes.bullets(self.why),
            *(boxes.line(problem, warning=True) for problem in self.problems),
            boxes.table(("", ""), [("to grow", self.grow), ("to shrink", self.shrink)]),
            state="degraded" if self.problems else "ok",
        )


def explain(
    hpa: Object,
    pods: Sequence[Object],
    answers: Sequence[Object | MetricUnavailable],
    events: Sequence[Object] = (),
    now: datetime | None = None,
    controller: Controller | None = None,
    *,
    scale: Object | None = None,
    source: str = "",
    fault: SelectorFault | None = None,
) -> Explanation:
    """Explain a HorizontalPodAutoscaler.

    Args:
        hpa: the object, with status.
        pods: v1 Pods that its target's selector matches.
        answers: per metric of the spec, the list object that the metrics API returned.
        events: Events about it.
        controller: the controller's flags; upstream's defaults where None.
        scale: the target's scale subresource, which has the replicas of this moment; where None, those of the
            autoscaler's status, which are as old as its last round.
        source: where the flags come from; "" where they are assumed.
        fault: what is wrong with the pods' selector.

    Raises:
        SpecError, ObservationError: an object is not what it should be.
    """
    now, controller = now or datetime.now(UTC), controller or Controller()
    spec, status = from_manifest(hpa, controller), hpa.get("status") or {}
    seen = [observe.pod(each, now) for each in pods]
    readings = observe.readings(spec, answers, now)
    replicas, there = _replicas(scale, status)
    zero = any(c.get("type") == "ScaledToZero" and c["status"] == "True" for c in _conditions(status))
    observed = Observation(0.0, replicas, seen, readings, there, fault)
    decision = decide(spec, observed, State(scaled_to_zero=zero), controller)
    look = _Look(spec, replicas, seen, decision, controller)
    why = [*_last_scaling(status, events, now), *look.measured(), *look.conditions(status)]
    failed = [(m, p) for m, p in look.pairs if isinstance(p, MetricUnavailable)]
    problems = dict.fromkeys(_problem(m, p) for m, p in [*failed, *look.without_requests()])
    grow, shrink = look.grow(), look.shrink()
    if fault is not None:
        problems = {f"{fault.reason}: {fault.message}. {fault.hint}": None, **problems}
        grow = shrink = f"nothing does it before {fault.reason} is mended."
    headline, settings = _headline(spec, replicas, status), words.settings(controller, source)
    return Explanation(headline, tuple(why), grow, shrink, tuple(problems), decision, settings)


def _replicas(scale: Object | None, status: Object) -> tuple[int, int]:
    """(asked for, there) of the target."""
    if scale is None:
        return (int(status.get("currentReplicas") or 0),) * 2
    asked, there = scale.get("spec") or {}, scale.get("status") or {}
    return int(asked.get("replicas") or 0), int(there.get("replicas") or 0)


def _conditions(status: Object) -> Sequence[Object]:
    return status.get("conditions") or []


def _headline(spec: HpaSpec, current: int, status: Object) -> str:
    desired = int(status.get("desiredReplicas") or 0)
    going = "" if desired in (0, current) else f", on the way to {desired}"
    return (
        f"{spec.namespace}/{spec.name}: {spec.target_kind} {spec.target_name} has "
        f"{words.plural(current, 'replica')}{going}; allowed are {spec.min_replicas} to {spec.max_replicas}."
    )


def _last_scaling(status: Object, events: Sequence[Object], now: datetime) -> list[str]:
    scalings = [e for e in events if e.get("reason") == "SuccessfulRescale"]
    if scalings:
        times = [(observe.timestamp("lastTimestamp", _time_of(e)), e.get("message", "")) for e in scalings]
        at, message = max(times, key=lambda pair: pair[0])
        return [f"{_ago(now, at)} it was scaled. {message}."]
    last = status.get("lastScaleTime")
    if last:
        return [f"{_ago(now, observe.timestamp('status.lastScaleTime', last))} it was last scaled."]
    return ["It has not scaled anything yet."]


def _time_of(event: Object) -> Any:
    stamps = (event.get(name) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return next((stamp for stamp in stamps if stamp), event.get("metadata", {}).get("creationTimestamp"))


def _ago(now: datetime, at: datetime) -> str:
    seconds = max((now - at).total_seconds(), 0.0)
    for size, noun in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{words.plural(round(seconds / size), noun)} ago"
    return f"{words.plural(round(seconds), 'second')} ago"


def _problem(metric: Metric, failure: MetricUnavailable) -> str:
    hint = failure.hint or next((hint for part, hint in HINTS if part in failure.message), "")
    return f"{metric.label}: {failure.message}.{' ' if hint else ''}{hint}"


class _Look:
    """One autoscaler, seen from all sides."""

    def __init__(
        self, spec: HpaSpec, replicas: int, pods: Sequence[Pod], decision: Decision, controller: Controller
    ) -> None:
        self.spec, self.replicas, self.pods, self.controller = spec, replicas, pods, controller
        self.decision = decision
        self.pairs = list(zip(spec.metrics, decision.proposals, strict=False))
        behavior = spec.behavior
        self.up = behavior.scale_up if behavior else DEFAULT_SCALE_UP
        self.down = behavior.scale_down if behavior else DEFAULT_SCALE_DOWN

    def without_requests(self) -> list[tuple[Metric, MetricUnavailable]]:
        """Utilization metrics that cannot work for want of a request, whether or not samples exist."""
        found = []
        for metric in self.spec.metrics:
            if metric.target.average_utilization is not None and metric.source != "Pods":
                try:
                    requests_of(self.pods, metric.name, metric.container)
                except MetricUnavailable as failure:
                    found.append((metric, failure))
        return found

    def measured(self) -> list[str]:
        """What the metrics say now, and what they would ask for."""
        if not self.pairs:
            return list(self.decision.reasons[:-1])
        story = [reason for _, p in self.pairs if isinstance(p, Proposal) for reason in p.reasons]
        if len(self.pairs) > 1 and self.decision.recommendation is not None:
            story.append(f"The largest proposal counts: {self.decision.recommendation}.")
        return story

    def conditions(self, status: Object) -> list[str]:
        """What the controller itself reports, with the numbers behind it."""
        up, down = self._window(self.up), self._window(self.down)
        low, high = self.spec.min_replicas, self.spec.max_replicas
        texts = {
            "ScaleDownStabilized": f"Fewer would do, but the highest recommendation of {down:g} s counts.",
            "ScaleUpStabilized": f"More are wanted, but the lowest recommendation of {up:g} s counts.",
            "TooManyReplicas": f"maxReplicas {high} keeps it from more.",
            "TooFewReplicas": f"minReplicas {low} keeps it from fewer.",
            "ScaleUpLimit": f"It grows no faster than {self._speed(self.up)}.",
            "ScaleDownLimit": f"It shrinks no faster than {self._speed(self.down)}.",
            "ScalingDisabled": "Autoscaling is off: someone set 0 replicas.",
        }
        reported = _conditions(status)
        known = [texts[c["reason"]] for c in reported if c.get("reason") in texts]
        failed = [
            f"The controller reports {c.get('reason')}: {c.get('message')}."
            for c in reported
            if (c.get("type"), c.get("status")) in FAILURES and c.get("reason") not in texts
        ]
        return known + failed

    def _window(self, rules: ScalingRules) -> float:
        if rules.window_seconds is None:
            return self.controller.downscale_stabilization_s
        return float(rules.window_seconds)

    def _speed(self, rules: ScalingRules) -> str:
        if self.spec.behavior is None:
            return "doubling (or to 4) at once" if rules is self.up else "at once"
        joined = " or ".join(str(policy) for policy in rules.policies)
        if len(rules.policies) > 1:
            joined += f", whichever is {'more' if rules.select == 'Max' else 'less'}"
        return joined

    def grow(self) -> str:
        if self.replicas >= self.spec.max_replicas:
            return f"not possible: maxReplicas {self.spec.max_replicas} is reached."
        if self.up.select == "Disabled":
            return "not possible: selectPolicy Disabled in spec.behavior.scaleUp."
        parts = [text for m, p in self.pairs if (text := self._threshold(m, p, +1))]
        if not parts:
            return "first a metric must become readable."
        return f"{', or '.join(parts)}{self._patience(self.up)}; then by at most {self._speed(self.up)}."

    def shrink(self) -> str:
        if self.replicas <= self.spec.min_replicas:
            return f"not possible: minReplicas {self.spec.min_replicas} is reached."
        if self.down.select == "Disabled":
            return "not possible: selectPolicy Disabled in spec.behavior.scaleDown."
        if any(isinstance(p, MetricUnavailable) for _, p in self.pairs) or not self.pairs:
            return "first every metric must become readable."
        parts = [text for m, p in self.pairs if (text := self._threshold(m, p, -1))]
        speed = self._speed(self.down)
        pace = "" if speed == "at once" else f"; then by at most {speed}"
        return f"{', and '.join(parts)}{self._patience(self.down)}{pace}."

    def _patience(self, rules: ScalingRules) -> str:
        builtin_up = self.spec.behavior is None and rules is self.up
        window = 0.0 if builtin_up else self._window(rules)
        return f", for {window:g} s on end" if window else ""

    def _threshold(self, metric: Metric, proposal: Proposal | MetricUnavailable, sign: int) -> str:
        """The value from which this metric asks for more (sign +1) or fewer pods than there are."""
        if isinstance(proposal, MetricUnavailable) or self.replicas == 0:
            return ""
        tolerance = Tolerance(*self.spec.tolerances(self.controller))
        value = turning_point(metric, self.replicas, tolerance, sign)
        bound = "or more" if sign > 0 else "or less"
        if metric.target.average_utilization is not None and metric.source != "Pods":
            request = self._request(metric)
            per_pod = f", {words.amount(request * value / 100, metric.name)} per pod" if request else ""
            return (
                f"{metric.label} at {value} % of the request {bound}{per_pod} (now {proposal.utilization} %)"
            )
        now = proposal.average if proposal.average is not None else proposal.value
        each = " per pod" if proposal.value is None else ""
        shown = (words.amount(v, metric.name) for v in (value, now or 0))
        return f"{metric.label} at {next(shown)}{each} {bound} (now {next(shown)})"

    def _request(self, metric: Metric) -> int | None:
        """The pods' request, where it is the same in all."""
        try:
            found = set(requests_of(self.pods, metric.name, metric.container).values())
        except MetricUnavailable:
            return None
        return found.pop() if len(found) == 1 else None


def turning_point(metric: Metric, replicas: int, tolerance: Tolerance, sign: int) -> int:
    """The lowest value that asks for more than `replicas` (sign +1), or the highest that asks for fewer.

    In per cent for utilization targets, else in thousandths; all pods Ready and alike. -1 if none does.
    """
    pods = [Pod(f"p{i}", age_s=1e9, ready_age_s=1e9, requests=_hundred(metric)) for i in range(replicas)]
    fleet, calm = Fleet(replicas, replicas, pods), Controller()
    per_pod = metric.source in ("Object", "External") and metric.target.value is None
    factor = replicas if per_pod else 1

    def wanted(value: int) -> int:
        alike: Reading = {p.name: PodMetric(value, 0, 0) for p in pods}
        if metric.source in ("Object", "External"):
            alike = [value * factor] if metric.source == "External" else value * factor
        return propose(metric, alike, fleet, tolerance, calm).replicas

    target = metric.target.average_utilization or metric.target.average_value or metric.target.value or 1
    low, high = -1, int(target * (3 + tolerance.up) * 2) + 2
    while high - low > 1:
        middle = (low + high) // 2
        passed = wanted(middle) > replicas if sign > 0 else wanted(middle) >= replicas
        low, high = (low, middle) if passed else (middle, high)
    return high if sign > 0 else low


def _hundred(metric: Metric) -> dict[str, dict[str, int]]:
    """Requests of 100 thousandths, so that a value is its own percentage."""
    return {metric.container or "c": {metric.name: 100}}
