"""From measurements to the model and back: calibrate it, compare its prediction, fit scalability.

The tables are those of `labkit.record.Recording` and `labkit.load.LoadResult`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit.hpa.errors import ObservationError, TraceError, number
from labkit.hpa.scenario import Pipeline, Service
from labkit.hpa.workload import Floats

if TYPE_CHECKING:
    from labkit.load import LoadResult
    from labkit.record import Recording


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A service and a metrics pipeline as measured.

    Args:
        points: one row per CPU sample: `rps` of that pod over the sample's window, `cpu_millicores`.
        fit_error_millicores: typical distance of a sample from the line (root mean square).
        starts_s: seconds from creation to Ready of each pod that started during the recording.
    """

    service: Service
    pipeline: Pipeline
    points: pd.DataFrame
    fit_error_millicores: float
    starts_s: tuple[float, ...]

    def __str__(self) -> str:
        s = self.service
        return (
            f"{s.cpu_ms_per_request:.1f} ms of CPU per request and {s.idle_millicores:.0f}m idle "
            f"(± {self.fit_error_millicores:.0f}m over {len(self.points)} samples); Ready after "
            f"{s.startup_s:.1f} s; a sample every {self.pipeline.scrape_interval_s:.0f} s"
        )


def calibrate(
    usage: pd.DataFrame,
    requests: pd.DataFrame,
    transitions: pd.DataFrame,
    base: Service | None = None,
    *,
    offset_s: float = 0.0,
    ready: pd.DataFrame | None = None,
) -> Calibration:
    """CPU per request, idle CPU, start-up time and sampling, from a short run.

    Args:
        usage: CPU samples of the service's pods: `name`, `t_seconds`, `window_s`, `cpu_millicores`.
        requests: what the load generator sent: `t_scheduled_s`, `failed`, and `pod` where it is known who
            answered; without it requests are shared evenly.
        transitions: changes: `kind`, `name`, `what`, `after`, `t_seconds`; only pods in `usage` count,
            and of them those that were created during the recording.
        base: what is not measured here (CPU request, limit, objective) comes from it.
        offset_s: the load's time zero on the recording's clock.
        ready: `t_seconds`, `ready_replicas`, for sharing evenly; one pod where None.

    Raises:
        ObservationError: too few samples, or all at the same rate, so that no line can be fitted.
    """
    points = _points(usage, requests, offset_s, ready)
    rates, cpu = points["rps"].to_numpy(), points["cpu_millicores"].to_numpy()
    if len(points) < 4 or np.ptp(rates) < 0.5:
        problem = (
            f"found {len(points)} samples between {rates.min(initial=0):.1f} and {rates.max(initial=0):.1f}/s"
        )
        raise ObservationError("usage", problem, "Record a calm and a busy minute at least.")
    cost, idle = np.polyfit(rates, cpu, 1)
    if idle < 0:
        cost, idle = float(rates @ cpu / (rates @ rates)), 0.0
    if cost <= 0:
        raise ObservationError("usage", "CPU does not rise with the requests", "Are these the right pods?")
    error = float(np.sqrt(np.mean((cpu - cost * rates - idle) ** 2)))
    pending, starts = _starts(transitions, set(usage["name"]))
    service = base or Service()
    startup = float(np.median(starts)) if starts else service.startup_s
    service = replace(
        service,
        cpu_ms_per_request=float(cost),
        idle_millicores=float(min(idle, service.limit_millicores / 2)),
        startup_s=startup,
        pending_s=min(float(np.median(pending)) if pending else service.pending_s, startup),
    )
    every = usage.sort_values("t_seconds").groupby("name")["t_seconds"].diff().median()
    window = float(usage["window_s"].median())
    interval = float(every) if np.isfinite(every) and every > 0 else 15.0
    pipeline = Pipeline(scrape_interval_s=interval, window_s=window if window > 0 else None)
    return Calibration(service, pipeline, points, error, tuple(starts))


def calibrate_run(
    recording: Recording, load: LoadResult, app: str, base: Service | None = None
) -> Calibration:
    """`calibrate` with what a recorder and a load generator kept of the same time.

    Args:
        app: value of the pods' label app.kubernetes.io/name (or app).
        base: what is not measured here.

    Raises:
        ObservationError: no such pods, or too little to tell from.
    """
    pods = set(recording.pods.loc[recording.pods["app"] == app, "name"])
    if not pods:
        known = ", ".join(sorted(set(recording.pods["app"]) - {""})) or "none"
        raise ObservationError("app", f"no pods of {app!r} were recorded", f"Recorded were: {known}.")
    own = recording.usage.loc[recording.usage["name"].isin(pods)]
    offset_s = load.started_at - recording.started_at
    return calibrate(own, load.requests, recording.transitions, base, offset_s=offset_s)


def _points(
    usage: pd.DataFrame, requests: pd.DataFrame, offset_s: float, ready: pd.DataFrame | None
) -> pd.DataFrame:
    good = requests.loc[~requests["failed"].astype(bool)]
    times = np.sort(good["t_scheduled_s"].to_numpy() + offset_s)
    known = "pod" in good
    by_pod = {}
    if known:
        by_pod = {n: np.sort(g["t_scheduled_s"].to_numpy() + offset_s) for n, g in good.groupby("pod")}
    begin, end = (times[0], times[-1]) if len(times) else (0.0, 0.0)
    rows = []
    for name, t, window, cpu in zip(
        usage["name"], usage["t_seconds"], usage["window_s"], usage["cpu_millicores"], strict=True
    ):
        since = t - window
        if window <= 0 or since < begin or t > end:
            continue
        own = by_pod.get(name, np.array([])) if known else times
        share = 1.0 if known or ready is None else _mean_ready(ready, since, t)
        rows.append((float(np.searchsorted(own, t) - np.searchsorted(own, since)) / window / share, cpu))
    return pd.DataFrame(rows, columns=["rps", "cpu_millicores"], dtype=float)


def _mean_ready(ready: pd.DataFrame, since: float, until: float) -> float:
    inside = ready.loc[ready["t_seconds"].between(since, until), "ready_replicas"]
    return max(float(inside.mean()) if len(inside) else 1.0, 1.0)


def _starts(transitions: pd.DataFrame, names: set[str]) -> tuple[list[float], list[float]]:
    """Seconds from creation to running, and to Ready, of pods whose creation was seen.

    A pod that was there when the recording began appears running; a new one appears pending.
    """
    pods = transitions.loc[transitions["kind"].eq("Pod") & transitions["name"].isin(names)]
    pending, starts = [], []
    for _, rows in pods.sort_values("t_seconds", kind="stable").groupby("name"):
        when = {
            mark: rows.loc[
                rows["what"].eq(mark[0]) & rows["after"].astype(str).eq(mark[1]), "t_seconds"
            ].min()
            for mark in (("exists", "True"), ("phase", "Pending"), ("phase", "Running"), ("ready", "True"))
        }
        born, waits, runs, ready = when.values()
        if born == waits and np.isfinite(ready):
            starts.append(float(ready - born))
            if np.isfinite(runs):
                pending.append(float(runs - born))
    return pending, starts


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How well a prediction met the measurement.

    Args:
        mean_error_replicas: mean absolute difference.
        within_one_percent: share of the time in which they differ by one replica at most.
        steps: one row per crossing of a replica count in either: `replicas`, `direction`, `predicted_s`,
            `measured_s`, `shift_s` (measured later: positive; NaN where only one of them crossed it).
    """

    mean_error_replicas: float
    within_one_percent: float
    steps: pd.DataFrame

    def __str__(self) -> str:
        shifts = self.steps["shift_s"].dropna()
        late = ""
        if len(shifts):
            late = f"; steps came {round(shifts.median()):+d} s from the prediction (median)"
        return (
            f"within one replica {self.within_one_percent:.0f} % of the time, "
            f"{self.mean_error_replicas:.2f} replicas off on average{late}"
        )


def compare(predicted: pd.DataFrame, measured: pd.DataFrame, every_s: float = 1.0) -> Agreement:
    """Compare two series of replicas on one clock.

    Args:
        predicted: `t_seconds` and `replicas`, each value held until the next; as in `Run.frame`.
        measured: the same, from a recording.

    Raises:
        TraceError: a series is empty or unsorted, or they do not overlap in time.
    """
    number("every_s", every_s, above=True, kind=TraceError)
    a, b = (_series(name, frame) for name, frame in (("predicted", predicted), ("measured", measured)))
    begin, end = max(a[0][0], b[0][0]), min(a[0][-1], b[0][-1])
    if begin >= end:
        raise TraceError("measured.t_seconds", "does not overlap with the prediction", "Use one clock.")
    grid = np.arange(begin, end + 1e-9, every_s)
    one, two = (y[np.searchsorted(t, grid + 1e-9, side="right") - 1] for t, y in (a, b))
    apart = np.abs(one - two)
    steps = _matched(_crossings(grid, one), _crossings(grid, two))
    return Agreement(float(apart.mean()), float(100 * (apart <= 1).mean()), steps)


def _series(name: str, frame: pd.DataFrame) -> tuple[Floats, Floats]:
    for column in ("t_seconds", "replicas"):
        if column not in frame:
            raise TraceError(f"{name}.{column}", "is missing")
    t, y = (frame[column].to_numpy(dtype=float) for column in ("t_seconds", "replicas"))
    if not len(t) or not np.isfinite(t).all() or not np.isfinite(y).all() or (np.diff(t) < 0).any():
        raise TraceError(f"{name}.t_seconds", "is empty, unsorted or not finite")
    return t, y


def _crossings(t: Floats, y: Floats) -> dict[tuple[int, str], list[float]]:
    """(replica count, up or down) → when the series reached it."""
    found: dict[tuple[int, str], list[float]] = {}
    for at, before, after in zip(t[1:], y[:-1].astype(int), y[1:].astype(int), strict=True):
        for count in range(before + 1, after + 1):
            found.setdefault((count, "up"), []).append(float(at))
        for count in range(before - 1, after - 1, -1):
            found.setdefault((count, "down"), []).append(float(at))
    return found


def _nearest(a: list[float], b: list[float]) -> list[tuple[float, float]]:
    """Pairs in order with the least total distance; what is left over is paired with NaN."""
    if len(a) > len(b):
        return [(x, y) for y, x in _nearest(b, a)]
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0] = 0.0
    for i in range(1, len(a) + 1):
        for j in range(i, len(b) + 1):
            cost[i, j] = min(cost[i, j - 1], cost[i - 1, j - 1] + abs(a[i - 1] - b[j - 1]))
    pairs, i = [], len(a)
    for j in range(len(b), 0, -1):
        taken = i > 0 and cost[i, j] < cost[i, j - 1]
        pairs.append((a[i - 1] if taken else np.nan, b[j - 1]))
        i -= taken
    return pairs[::-1]


def _matched(
    predicted: dict[tuple[int, str], list[float]], measured: dict[tuple[int, str], list[float]]
) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for key in {**predicted, **measured}:
        pairs = _nearest(predicted.get(key, []), measured.get(key, []))
        rows += [(*key, expected, seen, seen - expected) for expected, seen in pairs]
    columns = ["replicas", "direction", "predicted_s", "measured_s", "shift_s"]
    frame = pd.DataFrame(rows, columns=columns)
    order = frame[["predicted_s", "measured_s"]].min(axis=1).sort_values(kind="stable").index
    return frame.loc[order].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Scalability:
    """The Universal Scalability Law: X(n) = rate n / (1 + contention (n - 1) + coherency n (n - 1)).

    Args:
        rate: requests/s of one replica.
        contention: share of the work that waits in one queue (0: none, 1: all of it).
        coherency: cost of keeping replicas in agreement, per pair.
        r_squared: share of the throughputs' variance that the law explains.
    """

    rate: float
    contention: float
    coherency: float
    r_squared: float

    def throughput(self, replicas: float) -> float:
        """Requests/s with so many replicas."""
        n = replicas
        return self.rate * n / (1 + self.contention * (n - 1) + self.coherency * n * (n - 1))

    @property
    def peak_replicas(self) -> float:
        """Beyond so many replicas throughput falls; infinity without coherency cost."""
        if self.coherency <= 0:
            return float("inf")
        return float(np.sqrt(max(1 - self.contention, 0) / self.coherency))

    def efficiency_percent(self, replicas: float) -> float:
        """Throughput by what as many independent replicas would give."""
        return 100 * self.throughput(replicas) / (self.rate * replicas)


def fit_scalability(replicas: Sequence[float], throughput: Sequence[float]) -> Scalability:
    """Fit the Universal Scalability Law to measured throughputs (least squares, no negative parameter).

    Raises:
        ObservationError: fewer than three different replica counts, or values that are not positive.
    """
    n, x = np.asarray(replicas, dtype=float), np.asarray(throughput, dtype=float)
    counts = len(np.unique(n))
    if n.shape != x.shape or counts < 3:
        raise ObservationError("replicas", f"found {counts} different counts", "Measure three or more.")
    if not (np.isfinite(n).all() and np.isfinite(x).all() and (n > 0).all() and (x > 0).all()):
        raise ObservationError("throughput", "holds values that are not positive numbers")
    terms = np.column_stack([np.ones(len(n)), n - 1, n * (n - 1)]) * (x / n)[:, None]
    best: tuple[float, Floats] | None = None
    for chosen in ([0, 1, 2], [0, 1], [0, 2], [0]):
        solved, *_ = np.linalg.lstsq(terms[:, chosen], np.ones(len(n)), rcond=None)
        full = np.zeros(3)
        full[chosen] = solved
        miss = float(np.sum((terms @ full - 1) ** 2))
        if (full >= -1e-12).all() and full[0] > 0 and (best is None or miss < best[0] - 1e-15):
            best = (miss, np.maximum(full, 0.0))
    assert best is not None, "the ideal line alone always fits"
    inverse, wait, agree = best[1]
    law = Scalability(float(1 / inverse), float(wait / inverse), float(agree / inverse), 0.0)
    expected = np.array([law.throughput(count) for count in n])
    spread = float(np.sum((x - x.mean()) ** 2))
    explained = 1 - float(np.sum((x - expected) ** 2)) / spread if spread else 1.0
    return replace(law, r_squared=explained)
