"""Checks of lab 08: autoscaling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.hpa import HpaError, HpaSpec, byhand, contest, from_manifest, workload
from labkit.hpa.measure import Calibration, Scalability, compare
from labkit.kube import Object, dig
from labkit.kube.objects import condition
from labkit.load import LoadResult, Profile
from labkit.record import Recorder, Recording

SHOP, NAME = "shop", "pricing"
REACTION_S = 25.0
RIGHT_PERCENT = 75.0
PROMISE_MS = 500.0
REAL_PROMISE_MS = 750.0
"""On a cluster: a busy machine delays requests, and the model knows nothing of it. A late autoscaler's
requests wait for a second, and some of them are turned away."""
LEAST_ROOM = 4
CAUSES = {
    "A": "metrics-server",
    "B": "target",
    "C": "",
    "D": "load",
}
"""Letter of each diagnosis of `<unknown>` → key of the hint for it; "" for the right one."""


@define("08-unknown", "The autoscaler of frontend knows its metric again", deadline_s=120)
def unknown(cluster: Cluster, cause: object) -> Iterator[Finding]:
    """The learner has named the cause, and the HPA frontend has a current value."""
    letter = str(cause).strip().upper()
    key = CAUSES.get(letter, "cause")
    yield expect(not key, "you know the cause", f"you said {cause}, and the cluster says otherwise", key)
    hpa = cluster.kube.find("HorizontalPodAutoscaler", "frontend", namespace=SHOP)
    there = seen(cluster, "HorizontalPodAutoscaler", SHOP)
    yield expect(hpa is not None, "there is a HorizontalPodAutoscaler frontend", there, "gone")
    if hpa is None:
        return
    by_request = dig(hpa, "spec.metrics[0].resource.target.type", "Utilization") == "Utilization"
    deployment = cluster.kube.find("Deployment", "frontend", namespace=SHOP)
    without = without_cpu_request(deployment) if deployment else ["(there is no Deployment frontend)"]
    asked = ", ".join(without)
    yield expect(
        not (by_request and without), "each container requests CPU", f"without a request: {asked}", "request"
    )
    active = condition(hpa, "ScalingActive")
    said = active.get("message", "the controller has not looked at it yet")
    known = active.get("status") == "True" and bool(dig(hpa, "status.currentMetrics", []))
    yield expect(known, "it gets a metric it can use", said, "waiting")


def without_cpu_request(deployment: Object) -> list[str]:
    """Names of the containers that request no CPU; a limit without a request counts as the request."""
    containers = dig(deployment, "spec.template.spec.containers", [])
    return [
        str(each["name"])
        for each in containers
        if not dig(each, "resources.requests.cpu") and not dig(each, "resources.limits.cpu")
    ]


@define("08-hpa-sees-load", "The autoscaler sees the CPU of pricing", deadline_s=60)
def hpa_sees_load(cluster: Cluster) -> Iterator[Finding]:
    """The HPA exists, its conditions are good, and it has a current utilization."""
    hpa = cluster.kube.find("HorizontalPodAutoscaler", NAME, namespace=SHOP)
    there = seen(cluster, "HorizontalPodAutoscaler", SHOP)
    yield expect(hpa is not None, "there is a HorizontalPodAutoscaler pricing", there)
    if hpa is None:
        return
    active = condition(hpa, "ScalingActive")
    said = active.get("message", "the controller has not looked at it yet")
    yield expect(active.get("status") == "True", "it gets a metric it can use", said)
    now = dig(hpa, "status.currentMetrics[0].resource.current.averageUtilization")
    yield expect(now is not None, "it knows the pods' CPU utilization", "its status has no current value yet")


@define("08-by-hand", "Three decisions, made by hand", deadline_s=0)
def by_hand(tolerance: object, missing: object, most: object) -> Iterator[Finding]:
    """The learner's counts are those of the controller; see `labkit.hpa.byhand`."""
    answers = {"tolerance": tolerance, "missing": missing, "max": most}
    for name, answer in answers.items():
        right = byhand.CASES[name].decide().replicas
        told = f"you said {answer}, which is {_besides(answer, byhand.CASES[name].formula)}"
        yield expect(answer == right, f"the controller decides as you say ({name})", told, name)


def _besides(answer: object, formula: int) -> str:
    return "what the formula alone says" if answer == formula else "another number than the controller's"


@define("08-scaled-up", "The load rose, and the replicas followed", deadline_s=30)
def scaled_up(recorder: Recorder, rose_at: float) -> Iterator[Finding]:
    """The first scale-up came within 25 s of the load step, and more than twice the replicas became ready."""
    desired = _series(recorder, "hpas", "desired_replicas")
    before = int(desired[desired.index <= rose_at].iloc[-1]) if len(desired[desired.index <= rose_at]) else 0
    yield expect(before > 0, "replicas were counted before the load rose", "the recording began too late")
    ups = desired[(desired.index > rose_at) & (desired > before)]
    first = float(ups.index[0]) - rose_at if len(ups) else None
    said = f"it took {first:.0f} s" if first is not None else "there was no scale-up so far"
    yield expect(first is not None, "the autoscaler scaled up", said)
    yield expect(
        first is not None and first <= REACTION_S, f"within {REACTION_S:.0f} s of the load step", said
    )
    ready = _series(recorder, "deployments", "ready_replicas")
    most = int(ready.max()) if len(ready) else 0
    yield expect(most >= before + 2, "two more pods, at least, became ready", f"at most {most} were ready")


@define("08-scaled-down", "The load fell, and the replicas followed, later", deadline_s=30)
def scaled_down(recorder: Recorder, fell_at: float) -> Iterator[Finding]:
    """After the load fell the number was held for a while, and then went down to the minimum."""
    desired = _series(recorder, "hpas", "desired_replicas")
    tail = desired[desired.index > fell_at]
    downs = tail[tail.diff() < 0]
    now = f"desired is {tail.iloc[-1]:.0f}" if len(tail) else "the load has not fallen yet"
    yield expect(len(downs) > 0, "the autoscaler scaled down", now)
    held = float(downs.index[0]) - fell_at if len(downs) else 0.0
    yield expect(held >= 20, "not at once: the stabilization window held the number", f"it held {held:.0f} s")
    low = int(tail.min()) if len(tail) else 0
    yield expect(low == 1, "down to one replica in the end", f"the lowest number so far is {low}")


@define("08-prediction-holds", "The model's prediction was right, nearly all the time", deadline_s=0)
def prediction_holds(recording: Recording, predicted: pd.DataFrame) -> Iterator[Finding]:
    """Predicted and desired replicas differed by one at most for three quarters of the time."""
    rows = recording.hpas
    rows = rows[(rows["name"] == NAME) & (rows["namespace"] == SHOP)] if len(rows) else rows
    there = f"it has {len(recording.pods)} samples of pods, and none of the autoscaler"
    yield expect(len(rows) > 1, "the recording has the autoscaler's decisions", there)
    if len(rows) < 2:
        return
    agreement = compare(predicted, rows.rename(columns={"desired_replicas": "replicas"}))
    right = agreement.within_one_percent >= RIGHT_PERCENT
    yield expect(right, f"within one replica for {RIGHT_PERCENT:.0f} % of the time, at least", str(agreement))


@define("08-simulated", "Your autoscaler keeps the promise for less, in the simulator", deadline_s=0)
def simulated(file: str | Path, measured: Calibration, rates: Profile) -> Iterator[Finding]:
    """The learner's manifest scales pricing, and costs less than the default under the load to come."""
    try:
        spec = from_manifest(Path(file))
    except (HpaError, OSError, ValueError) as error:
        said = error.message if isinstance(error, HpaError) else str(error)
        yield expect(False, f"{file} is a HorizontalPodAutoscaler", said, "unreadable")
        return
    aims = f"{spec.target_kind} {spec.target_name}"
    named = f"it is {spec.name} in namespace {spec.namespace}, for the {aims}"
    right = (spec.name, spec.namespace, aims) == (NAME, SHOP, f"Deployment {NAME}")
    yield expect(right, "it is the autoscaler of pricing, in the namespace shop", named, "target")
    room = f"its maxReplicas is {spec.max_replicas}"
    yield expect(spec.max_replicas >= LEAST_ROOM, f"it may grow to {LEAST_ROOM} replicas", room, "room")
    load = workload.sampled(rates.rate, rates.duration_s)
    yield from cheaper(spec, measured, load)


def cheaper(spec: HpaSpec, measured: Calibration, load: workload.Load) -> Iterator[Finding]:
    """Whether an autoscaler keeps PROMISE_MS with fewer replica-seconds than the default."""
    other = contest.simulated(contest.DEFAULT, measured, load)
    try:
        own = contest.simulated(spec, measured, load)
    except HpaError as error:
        yield expect(False, "the simulator knows its metric", error.message, "metric")
        return
    fast = own.p95_ms <= PROMISE_MS
    yield expect(fast, f"p95 is at most {PROMISE_MS:.0f} ms", f"simulated: {own}", "late")
    less = own.replica_seconds < other.replica_seconds
    yield expect(less, "it costs less than the default", f"yours: {own}. The default: {other}", "cost")


@define("08-promise-kept", "Your autoscaler keeps the promise for less, for real", deadline_s=0)
def promise_kept(
    run: tuple[Recording, LoadResult] | None, measured: Calibration, rates: Profile
) -> Iterator[Finding]:
    """The recorded run kept the promise, and cost less than what the default costs by the model."""
    yield expect(run is not None, "your autoscaler met the load", "nothing has been recorded so far")
    if run is None:
        return
    own = contest.measured(*run, NAME, SHOP)
    load = workload.sampled(rates.rate, rates.duration_s)
    other = contest.simulated(contest.DEFAULT, measured, load)
    fast = own.p95_ms <= REAL_PROMISE_MS
    yield expect(fast, f"p95 was at most {REAL_PROMISE_MS:.0f} ms", f"measured: {own}")
    less = 0 < own.replica_seconds < other.replica_seconds
    yield expect(less, "it cost less than the default", f"yours: {own}. The default, by the model: {other}")


@define("08-scalability-measured", "Throughput measured against replicas", deadline_s=0)
def scalability_measured(measured: dict[int, float]) -> Iterator[Finding]:
    """Three replica counts or more, and the highest did more work than the lowest."""
    seen_counts = ", ".join(f"{n}: {rps:.0f}/s" for n, rps in sorted(measured.items())) or "nothing yet"
    yield expect(len(measured) >= 3, "three or more replica counts were measured", f"so far {seen_counts}")
    if len(measured) >= 2:
        low, high = min(measured), max(measured)
        yield expect(measured[high] > measured[low], f"{high} replicas did more than {low}", seen_counts)


@define("08-max", "maxReplicas follows from the measured law", deadline_s=0)
def max_replicas(law: Scalability, measured: dict[int, float], answer: object) -> Iterator[Finding]:
    """Each replica up to the answer adds half of what one does alone, and the next one would not."""
    whole = isinstance(answer, int) and not isinstance(answer, bool) and answer > 0
    yield expect(whole, "maxReplicas is a number of replicas", f"you said {answer!r}", "count")
    if not isinstance(answer, int) or not whole:
        return
    right = contest.most_useful(law.throughput, max(measured))
    last, more = (law.throughput(n) - (law.throughput(n - 1) if n > 1 else 0) for n in (answer, answer + 1))
    alone = f"one alone does {law.rate:.1f}/s"
    told = f"you said {answer}; by the law the last of them adds {last:.1f}/s, and {alone}"
    yield expect(answer <= right, "every one of them is worth its price", told, "high")
    told = f"you said {answer}; one more would add {more:.1f}/s, and {alone}"
    yield expect(answer >= right, "and one more would not be", told, "low")


@define("08-cleaned-up", "The shop and its autoscaler are gone", deadline_s=90)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """No namespace shop."""
    space = cluster.kube.find("Namespace", SHOP)
    phase = dig(space, "status.phase", "")
    yield expect(space is None or phase == "Terminating", "the namespace shop goes", f"it is {phase}")


def _series(recorder: Recorder, table: str, column: str) -> pd.Series[float]:
    """A column of the autoscaled Deployment by seconds since 1970."""
    recording = recorder.recording()
    rows = recording.tables[table]
    rows = rows[(rows["name"] == NAME) & (rows["namespace"] == SHOP)]
    return pd.Series(rows[column].astype(float).to_numpy(), index=rows["t_seconds"] + recording.started_at)
