"""Autoscalers compared: what a run cost, and how its requests fared; simulated and measured alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from labkit.hpa.measure import Calibration
from labkit.hpa.scenario import Pipeline, Scenario
from labkit.hpa.simulate import simulate
from labkit.hpa.spec import Controller, HpaSpec, cpu_utilization
from labkit.hpa.workload import Floats, Load

if TYPE_CHECKING:
    from labkit.load import LoadResult
    from labkit.record import Recording

DEFAULT: Final = HpaSpec(6, metrics=(cpu_utilization(60),), name="pricing", namespace="shop")
"""The autoscaler to beat: 1 to 6 replicas at 60 % of the requested CPU, everything else left as it comes."""
QUICK: Final = Controller(5, initial_readiness_delay_s=5, cpu_initialization_period_s=10)
"""The controller of labkit's clusters."""


@dataclass(frozen=True, slots=True)
class Score:
    """How an autoscaler did.

    Args:
        replica_seconds: what it cost.
        p95_ms: 95 of 100 requests took no longer; infinity where more than 5 of 100 failed.
    """

    replica_seconds: float
    p95_ms: float

    def __str__(self) -> str:
        p95 = f"p95 {self.p95_ms:.0f} ms" if np.isfinite(self.p95_ms) else "more than 5 % failed"
        return f"{self.replica_seconds:.0f} replica-seconds, {p95}"


def simulated(spec: HpaSpec, measured: Calibration, load: Load, controller: Controller = QUICK) -> Score:
    """The score of an autoscaler in the simulator. Its p95 is that of the seconds' mean latencies.

    Raises:
        HpaError: an autoscaler that the simulator does not know, such as one by memory.
    """
    pipeline = Pipeline(measured.pipeline.scrape_interval_s, measured.pipeline.window_s, delay_s=1)
    run = simulate(Scenario(spec, measured.service, pipeline, controller), load)
    return Score(run.totals["replica_seconds"], p95_of(run.frame))


def p95_of(frame: pd.DataFrame) -> float:
    """p95 of a simulated run, from `latency_ms`, `served_rps` and `lost_rps`; lost ones take forever."""
    served, lost = (frame[name].to_numpy(dtype=float) for name in ("served_rps", "lost_rps"))
    values = np.append(frame["latency_ms"].to_numpy(dtype=float), np.inf)
    return _percentile(values, np.append(served, lost.sum()), 0.95)


def measured(recording: Recording, result: LoadResult, name: str, namespace: str) -> Score:
    """The score of a run on a cluster: the Deployment's replicas while the load lasted, and its requests.

    Args:
        name: of the Deployment.
    """
    rows = recording.deployments
    rows = rows[(rows["name"] == name) & (rows["namespace"] == namespace)]
    since = result.started_at - recording.started_at
    grid = np.arange(since, since + result.span_s)
    times = rows["t_seconds"].to_numpy(dtype=float)
    counts = rows["replicas"].fillna(0).to_numpy(dtype=float)
    place = np.maximum(np.searchsorted(times, grid, side="right") - 1, 0)
    cost = float(counts[place].sum()) if len(counts) else 0.0
    requests = result.requests
    latency = requests["latency_ms"].where(~requests["failed"].astype(bool), np.inf)
    return Score(cost, _percentile(latency.to_numpy(dtype=float), np.ones(len(latency)), 0.95))


def _percentile(values: Floats, weights: Any, share: float) -> float:
    """The smallest value that is not below `share` of the weight; NaN without any."""
    if not len(values) or not weights.sum() > 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1] - 1e-9)])


def most_useful(rate: Callable[[float], float], measured_up_to: int, share: float = 0.5) -> int:
    """The highest count up to which each replica adds at least `share` of what one replica does alone.

    Args:
        rate: throughput at a number of replicas, such as `Scalability.throughput`.
        measured_up_to: highest count that was measured; beyond twice as many a law is a guess, and no answer.
    """
    one, count = rate(1), 1
    while count < 2 * measured_up_to and rate(count + 1) - rate(count) >= share * one:
        count += 1
    return count
