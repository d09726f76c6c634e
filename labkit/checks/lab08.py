"""Checks of lab 08: autoscaling."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.hpa.measure import compare
from labkit.kube import dig
from labkit.kube.objects import condition
from labkit.record import Recorder, Recording

SHOP, NAME = "shop", "pricing"
REACTION_S = 25.0
RIGHT_PERCENT = 75.0


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


@define("08-scalability-measured", "Throughput measured against replicas", deadline_s=0)
def scalability_measured(measured: dict[int, float]) -> Iterator[Finding]:
    """Three replica counts or more, and the highest did more work than the lowest."""
    seen_counts = ", ".join(f"{n}: {rps:.0f}/s" for n, rps in sorted(measured.items())) or "nothing yet"
    yield expect(len(measured) >= 3, "three or more replica counts were measured", f"so far {seen_counts}")
    if len(measured) >= 2:
        low, high = min(measured), max(measured)
        yield expect(measured[high] > measured[low], f"{high} replicas did more than {low}", seen_counts)


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
