"""Simulate an autoscaled service: one scenario in detail, or many at once.

>>> from labkit.hpa import HpaSpec, Scenario, simulate, workload
>>> run = simulate(Scenario(HpaSpec(max_replicas=10)), workload.sine(mean=60, amplitude=50))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from labkit.hpa.arithmetic import Arrays, Scalars
from labkit.hpa.engine import Engine, Knobs, Row, knobs
from labkit.hpa.errors import ServiceError
from labkit.hpa.scenario import Scenario
from labkit.hpa.workload import Load

BATCH: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A simulated time series.

    Args:
        frame: one row per step: `t_seconds`, `arrival_rps`, `replicas`, `ready_replicas`,
            `utilization_percent` (of the Ready pods' requests), `metric_percent` (what the autoscaler saw
            last), `recommendation` (what it asked for before windows and limits), `latency_ms` (mean),
            `queue_requests`, `served_rps`, `lost_rps`, `slo_miss_percent`, `cpu_millicores` (all pods).
        totals: see `TOTALS`.
    """

    frame: pd.DataFrame
    totals: dict[str, float]


TOTALS: Final = {
    "replica_seconds": "sum of replicas over time: what the run costs",
    "mean_replicas": "replicas on average",
    "max_replicas": "most replicas at once",
    "scalings": "changes of the replica count",
    "utilization_percent": "CPU used by CPU requested",
    "mean_latency_ms": "mean over the served requests",
    "lost_percent": "requests that nobody served",
    "slo_miss_percent": "requests lost, or slower than the service's slo_ms",
}


def simulate(scenario: Scenario, load: Load, seed: int | None = None) -> Run:
    """One run. The same seed gives the same run; without one, arrivals are exactly the load's rates.

    Raises:
        ServiceError: sync period and load step do not fit together.
    """
    arrivals, shocks = _random(load, seed)
    engine = _engine([scenario], load.dt_s)
    with np.errstate(all="ignore"):
        rows = list(engine.run(arrivals.tolist(), shocks.tolist()))
    columns = Row(*(np.array(column, dtype=float) for column in zip(*rows, strict=True)))
    frame = _frame(columns, load, scenario)
    return Run(frame, {name: float(value) for name, value in _Totals(load).of(columns, scenario).items()})


def sweep(scenarios: Iterable[Scenario], load: Load, seed: int | None = None) -> pd.DataFrame:
    """Totals of many scenarios under the same load: one row each, in order, columns as in `TOTALS`."""
    every = list(scenarios)
    if not every:
        raise ServiceError("scenarios", "the list is empty", "Give at least one.")
    groups: dict[tuple[bool, float], list[int]] = {}
    for i, scenario in enumerate(every):
        key = (scenario.spec.behavior is None, scenario.controller.sync_period_s)
        groups.setdefault(key, []).append(i)
    arrivals, shocks = _random(load, seed)
    results: list[tuple[list[int], dict[str, Any]]] = []
    for members in groups.values():
        for begin in range(0, len(members), BATCH):
            batch = members[begin : begin + BATCH]
            results.append((batch, _batch([every[i] for i in batch], load, arrivals, shocks)))
    frame = pd.DataFrame(index=range(len(every)), columns=list(TOTALS), dtype=float)
    for batch, totals in results:
        for name, values in totals.items():
            frame.loc[batch, name] = values
    return frame


def _batch(scenarios: list[Scenario], load: Load, arrivals: Any, shocks: Any) -> dict[str, Any]:
    totals = _Totals(load)
    with np.errstate(all="ignore"):
        for row in _engine(scenarios, load.dt_s).run(arrivals.tolist(), shocks.tolist()):
            totals.add(row)
    return totals.result(np.array([s.service.request_millicores for s in scenarios]))


def _random(load: Load, seed: int | None) -> tuple[Any, Any]:
    arrivals = load.arrivals(seed)
    return arrivals, np.random.default_rng([seed or 0, 1]).standard_normal(len(arrivals))


def _engine(scenarios: Sequence[Scenario], dt_s: float) -> Engine:
    """An engine for scenarios of one kind: plain numbers for one, arrays for several."""
    controller = scenarios[0].controller
    sync = round(controller.sync_period_s / dt_s)
    if sync < 1 or not math.isclose(sync * dt_s, controller.sync_period_s):
        problem = f"found {controller.sync_period_s:g}, no multiple of the load's step of {dt_s:g} s"
        raise ServiceError("sync_period_s", problem, "Choose a load step that divides it.")
    rules = [s.spec.behavior for s in scenarios if s.spec.behavior]
    most_up = max((len(r.scale_up.policies) for r in rules), default=2)
    most_down = max((len(r.scale_down.policies) for r in rules), default=1)
    each = [knobs(scenario, dt_s, (most_up, most_down)) for scenario in scenarios]
    numbers = Scalars() if len(each) == 1 else Arrays()
    stacked = each[0] if len(each) == 1 else _stack(each)
    return Engine(numbers, stacked, dt_s, not rules, sync, _depths(each, dt_s))


def _stack(each: list[Knobs]) -> Knobs:
    values = {name: np.array([k.values[name] for k in each]) for name in each[0].values}
    up = [
        tuple(np.array(column) for column in zip(*p, strict=True))
        for p in zip(*(k.up for k in each), strict=True)
    ]
    down = [
        tuple(np.array(column) for column in zip(*p, strict=True))
        for p in zip(*(k.down for k in each), strict=True)
    ]
    return Knobs(values, up, down)  # type: ignore[arg-type]


def _depths(each: list[Knobs], dt_s: float) -> tuple[int, int]:
    """The furthest any of them looks back, in steps and in rounds."""
    steps = rounds = 1
    for k in each:
        v = k.values
        age = math.ceil((v["scrape_s"] + v["delay_s"]) / dt_s) + 1
        steps = max(steps, age + max(v["first"], v["startup"] + v["window"], v["fresh"]) + 1)
        rounds = max(rounds, v["up_back"] + 1, v["down_back"] + 1)
    return steps, rounds


class _Totals:
    """Sums over the steps of a run, for one scenario or a batch."""

    def __init__(self, load: Load) -> None:
        self.dt, self.steps = load.dt_s, len(load.rates)
        self.sums: list[Any] = [0.0] * 8
        self.before: Any = None

    def add(self, row: Row) -> None:
        sums = self.sums
        sums[0] = sums[0] + row.replicas
        sums[1] = np.maximum(sums[1], row.replicas)
        if self.before is not None:
            sums[2] = sums[2] + (row.replicas != self.before)
        self.before = row.replicas
        sums[3] = sums[3] + row.millicores
        sums[4] = sums[4] + row.latency_ms * row.served
        sums[5] = sums[5] + row.served
        sums[6] = sums[6] + row.lost
        sums[7] = sums[7] + row.missed

    def of(self, columns: Row, scenario: Scenario) -> dict[str, Any]:
        """The totals of one run from its columns."""
        c = columns
        self.sums = [
            c.replicas.sum(),
            c.replicas.max(),
            (np.diff(c.replicas) != 0).sum(),
            c.millicores.sum(),
            (c.latency_ms * c.served).sum(),
            c.served.sum(),
            c.lost.sum(),
            c.missed.sum(),
        ]
        return self.result(scenario.service.request_millicores)

    def result(self, request_millicores: Any) -> dict[str, Any]:
        count, most, scalings, cpu, latency, served, lost, missed = self.sums
        requests = np.maximum(served + lost, 1e-9)
        return {
            "replica_seconds": count * self.dt,
            "mean_replicas": count / self.steps,
            "max_replicas": most,
            "scalings": scalings,
            "utilization_percent": 100 * cpu / (count * request_millicores),
            "mean_latency_ms": latency / np.maximum(served, 1e-9),
            "lost_percent": 100 * lost / requests,
            "slo_miss_percent": 100 * missed / requests,
        }


def _frame(c: Row, load: Load, scenario: Scenario) -> pd.DataFrame:
    handled = np.maximum(c.served + c.lost, 1e-9)
    ready = np.maximum(c.ready, 1)
    return pd.DataFrame(
        {
            "t_seconds": np.arange(len(c.replicas)) * load.dt_s,
            "arrival_rps": c.arrived / load.dt_s,
            "replicas": c.replicas.astype(int),
            "ready_replicas": c.ready.astype(int),
            "utilization_percent": 100 * c.millicores / (ready * scenario.service.request_millicores),
            "metric_percent": c.metric,
            "recommendation": c.wanted,
            "latency_ms": c.latency_ms,
            "queue_requests": c.queue,
            "served_rps": c.served / load.dt_s,
            "lost_rps": c.lost / load.dt_s,
            "slo_miss_percent": 100 * c.missed / handled,
            "cpu_millicores": c.millicores,
        }
    )
