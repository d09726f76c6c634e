"""The simulator against the exact model, pod by pod, and against rules that always hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from labkit.hpa import (
    Behavior,
    Controller,
    HpaError,
    HpaSpec,
    Metric,
    Observation,
    Pipeline,
    Pod,
    PodMetric,
    Policy,
    ScalingRules,
    Scenario,
    Service,
    ServiceError,
    SpecError,
    State,
    Target,
    TraceError,
    cpu_utilization,
    decide,
    simulate,
    sweep,
    workload,
)

policies = st.builds(
    Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 150), st.sampled_from([15, 50, 300])
)
rules = st.builds(
    ScalingRules,
    st.lists(policies, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.sampled_from([0, 20, 120]),
    st.sampled_from([None, 0.0, 0.3]),
)
targets = st.sampled_from([20, 60, 150]).map(cpu_utilization) | st.sampled_from([60, 250]).map(
    lambda m: Metric("Resource", "cpu", Target("AverageValue", average_value=m))
)
specs = st.builds(
    lambda low, span, metric, behavior: HpaSpec(low + span, low, metrics=(metric,), behavior=behavior),
    st.integers(1, 4),
    st.integers(0, 25),
    targets,
    st.none() | st.builds(Behavior, rules, rules),
)
services = st.builds(
    lambda cpu, pending, more, startup: Service(
        cpu_ms_per_request=cpu,
        request_millicores=200,
        pending_s=pending,
        startup_s=pending + more,
        startup_millicores=startup,
    ),
    st.sampled_from([5.0, 40.0]),
    st.sampled_from([0.0, 2.0, 20.0]),
    st.sampled_from([0.0, 8.0, 90.0]),
    st.sampled_from([0.0, 500.0]),
)
pipelines = st.builds(
    Pipeline, st.sampled_from([10.0, 15.0, 60.0]), st.just(None), st.sampled_from([0.0, 7.0])
)
controllers = st.builds(
    Controller,
    st.sampled_from([5.0, 15.0]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.0, 60.0, 300.0]),
    st.sampled_from([0.0, 10.0, 300.0]),
)
scenarios = st.builds(
    lambda *parts: Scenario(*parts, machine_millicores=20_000), specs, services, pipelines, controllers
)
rates = st.lists(st.floats(0, 120), min_size=3, max_size=8)


def stairs(levels: list[float]) -> workload.Load:
    return workload.Load(np.repeat(np.array(levels), 24), 5.0)


# --- the same as the exact model --------------------------------------------------------------------------


class Used:
    """CPU time used by a Ready pod since time zero, at each step's start, in millicore-seconds."""

    def __init__(self, run: pd.DataFrame, scenario: Scenario, load: workload.Load) -> None:
        per_pod = self.per_pod(run, scenario)
        self.total = np.concatenate([[0.0], np.cumsum(per_pod * 5.0)])
        metrics = scenario.spec.metrics
        fixed = replace(scenario, spec=HpaSpec(scenario.start, scenario.start, metrics))
        self.before = float(self.per_pod(simulate(fixed, load).frame, fixed)[0])

    @staticmethod
    def per_pod(run: pd.DataFrame, scenario: Scenario) -> np.ndarray[Any, Any]:
        starting = (run.replicas - run.ready_replicas) * scenario.service.startup_millicores
        used = run.cpu_millicores - np.minimum(starting, scenario.machine_millicores)
        share = used / run.ready_replicas.clip(lower=1)
        return np.where(run.ready_replicas == 0, scenario.service.idle_millicores, share)

    def until(self, step: int) -> float:
        """Before time zero the service ran the first load with all its first pods Ready."""
        return float(self.total[step]) if step >= 0 else step * 5.0 * self.before


class Pods:
    """The pods of a simulated run, one by one: replaced newest first, each with its own age."""

    def __init__(self, scenario: Scenario) -> None:
        self.s = scenario
        self.created = [-10_000] * scenario.start

    def set(self, count: int, step: int) -> None:
        del self.created[count:]
        self.created += [step] * (count - len(self.created))

    def seen(self, step: int, used: Used) -> tuple[list[Pod], dict[str, PodMetric]]:
        service, pipe, dt = self.s.service, self.s.pipeline, 5.0
        scraped = math.floor((step * dt - pipe.delay_s) / pipe.scrape_interval_s) * pipe.scrape_interval_s
        age = math.floor((step * dt - scraped) / dt + 0.5)
        window = max(1, round((pipe.window_s or pipe.scrape_interval_s) / dt))
        spent = used.until(step - age) - used.until(step - age - window)
        value = math.ceil(spent / (window * dt) - 1e-9)
        pods, reading = [], {}
        for i, created in enumerate(self.created):
            old, startup = (step - created) * dt, math.ceil(service.startup_s / dt) * dt
            ready = old >= startup
            pods.append(
                Pod(
                    f"p{i}",
                    "Pending" if old < service.pending_s else "Running",
                    ready=ready,
                    ready_age_s=old - startup if ready else old,
                    age_s=old,
                    requests={"c": {"cpu": service.request_millicores}},
                )
            )
            if (step - age - created) * dt >= service.pending_s + pipe.first_sample_s:
                reading[f"p{i}"] = PodMetric(value, age * dt, window * dt)
        return pods, reading


@settings(max_examples=60, deadline=None)
@given(scenarios, rates)
def test_every_round_is_the_one_that_the_exact_model_decides(scenario: Scenario, levels: list[float]) -> None:
    load = stairs(levels)
    run = simulate(scenario, load).frame
    used = Used(run, scenario, load)
    changes = 0
    pods, state, replicas = Pods(scenario), State(), scenario.start
    sync = round(scenario.controller.sync_period_s / 5.0)
    for step in range(0, len(run), sync):
        seen, reading = pods.seen(step, used)
        observed = Observation(step * 5.0, replicas, seen, [reading])
        decision = decide(scenario.spec, observed, state, scenario.controller)
        state, replicas = decision.state, decision.replicas
        pods.set(replicas, step)
        assert replicas == run.replicas[step], (step, decision.reasons)
        changes += decision.replicas != decision.before
    event(f"scaled {min(changes, 3)} times or more")


@settings(max_examples=20, deadline=None)
@given(st.lists(scenarios, min_size=2, max_size=12), rates, st.integers(0, 9))
def test_a_sweep_gives_what_single_runs_give(several: list[Scenario], levels: list[float], seed: int) -> None:
    load = stairs(levels)
    table = sweep(several, load, seed)
    for i, scenario in enumerate(several):
        assert simulate(scenario, load, seed).totals == pytest.approx(dict(table.loc[i]), rel=1e-6, abs=1e-9)


# --- rules that always hold -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scenarios, rates, st.integers(0, 99))
def test_inside_limits_and_every_request_accounted_for(
    scenario: Scenario, levels: list[float], seed: int
) -> None:
    run = simulate(scenario, stairs(levels), seed).frame
    assert run.replicas.between(scenario.spec.min_replicas, scenario.spec.max_replicas).all()
    assert (run.ready_replicas <= run.replicas).all()
    assert run.slo_miss_percent.between(0, 100 + 1e-9).all()
    left = float(run.queue_requests.iloc[-1])
    handled = (run.served_rps + run.lost_rps).sum() * 5.0
    assert run.arrival_rps.sum() * 5.0 == pytest.approx(handled + left, rel=1e-9, abs=1e-6)
    assert (run.cpu_millicores <= scenario.machine_millicores + run.replicas * 2 + 1e-6).all()


def test_a_steady_load_inside_tolerance_never_scales() -> None:
    spec = HpaSpec(10, 1, metrics=(cpu_utilization(60),))
    scenario = Scenario(spec, Service(cpu_ms_per_request=20), start_replicas=4)
    run = simulate(scenario, workload.constant(4 * 150 / 20 * 0.95, 7200))
    assert run.totals["scalings"] == 0
    assert run.frame.metric_percent.iloc[-1] == pytest.approx(58, abs=1)


def test_the_same_seed_is_the_same_run() -> None:
    scenario = Scenario(HpaSpec(20), noise=0.1)
    load = workload.sine(60, 50, duration_s=7200, period_s=3600)
    first, again, other = (simulate(scenario, load, seed).frame for seed in (7, 7, 8))
    pd.testing.assert_frame_equal(first, again)
    assert not first.arrival_rps.equals(other.arrival_rps)


def test_a_step_of_load_is_followed_and_left_after_the_window() -> None:
    spec = HpaSpec(10, 1, metrics=(cpu_utilization(50),))
    service = Service(cpu_ms_per_request=25, request_millicores=250, limit_millicores=500, startup_s=20)
    load = workload.step(4, 40, at_s=600, until_s=1800, duration_s=3600, dt_s=5)
    run = simulate(Scenario(spec, service), load).frame.set_index("t_seconds").rename(index=int)
    assert run.replicas.loc[590] == 1
    assert run.replicas.loc[1790] == math.ceil(40 * 25 / 125)
    assert (run.replicas.loc[1800:2090] == run.replicas.loc[1790]).all()
    assert run.replicas.loc[2200] == 1
    assert run.slo_miss_percent.loc[600:640].max() > 50
    assert run.slo_miss_percent.loc[900:1790].max() < 5


def test_a_small_machine_limits_what_more_pods_can_do() -> None:
    spec = HpaSpec(10, 1, metrics=(cpu_utilization(50),))
    load = workload.constant(100, 1800)
    wide = simulate(Scenario(spec, Service(cpu_ms_per_request=30)), load)
    narrow = simulate(Scenario(spec, Service(cpu_ms_per_request=30), machine_millicores=2000), load)
    assert wide.frame.served_rps.iloc[-1] == pytest.approx(100)
    assert narrow.frame.served_rps.iloc[-1] == pytest.approx(2000 / 30, rel=0.02)
    assert narrow.totals["slo_miss_percent"] > wide.totals["slo_miss_percent"]


# --- load -------------------------------------------------------------------------------------------------


def test_shapes() -> None:
    day = workload.sine(100, 100)
    assert len(day.rates) == 5760 and day.duration_s == 86_400
    assert day.rates[0] == 0 and day.rates[2880] == pytest.approx(200)
    assert workload.ramp(0, 10, 100, 200, 300, 10).rates[[9, 15, 25]].tolist() == [0, 5, 10]
    spiky = workload.spikes(5, 50, every_s=600, width_s=60, duration_s=3600, dt_s=10, seed=3)
    assert (spiky.rates == 55).sum() == pytest.approx(36, abs=6)
    both = workload.constant(1, 60, 10) + workload.constant(2, 60, 10) * 3
    assert both.rates.tolist() == [7.0] * 6
    assert workload.constant(3, 30, 15).frame.columns.tolist() == ["t_seconds", "arrival_rps"]


def test_a_function_of_time_is_sampled() -> None:
    assert workload.sampled(lambda t: 2 * t, 4, 1).rates.tolist() == [0, 2, 4, 6]
    assert workload.sampled(lambda _: 3, 2, 1).rates.tolist() == [3, 3]
    with pytest.raises(TraceError, match=r"rates\[3\]"):
        workload.sampled(lambda t: 5 - 2 * t, 6, 1)


def test_a_recorded_trace_is_resampled() -> None:
    frame = pd.DataFrame({"t_seconds": [100.0, 110, 120, 130], "arrival_rps": [1.0, 2, 3, 4]})
    assert workload.trace(frame, dt_s=5).rates.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("t", "rps", "field"),
    [
        ([0, 20, 10], [1, 1, 1], "t_seconds[2]"),
        ([0, 10, 10], [1, 1, 1], "t_seconds[2]"),
        ([0, 10, 20, 30, 300], [1] * 5, "t_seconds[4]"),
        ([0, 10, math.nan], [1, 1, 1], "t_seconds[2]"),
        ([0, 10, 20], [1, math.nan, 1], "arrival_rps[1]"),
        ([0, 10, 20], [1, -1, 1], "arrival_rps[1]"),
        ([0], [1], "t_seconds"),
    ],
)
def test_bad_traces_name_the_sample(t: list[float], rps: list[float], field: str) -> None:
    with pytest.raises(TraceError) as caught:
        workload.trace(pd.DataFrame({"t_seconds": t, "arrival_rps": rps}))
    assert caught.value.field == field


def test_traces_need_their_columns() -> None:
    with pytest.raises(TraceError, match="arrival_rps"):
        workload.trace(pd.DataFrame({"t_seconds": [0, 1]}))


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Service(request_millicores=0), "request_millicores"),
        (lambda: Service(cpu_ms_per_request=math.nan), "cpu_ms_per_request"),
        (lambda: Service(startup_s=1, pending_s=2), "startup_s"),
        (lambda: Service(limit_millicores=1), "limit_millicores"),
        (lambda: Pipeline(scrape_interval_s=0), "scrape_interval_s"),
        (lambda: Scenario(HpaSpec(3), machine_millicores=math.nan), "machine_millicores"),
        (lambda: Scenario(HpaSpec(3), start_replicas=4), "start_replicas"),
        (lambda: Scenario(HpaSpec(3), noise=-1), "noise"),
        (lambda: workload.constant(math.nan, 60), "rps"),
        (lambda: workload.constant(1, -60), "duration_s"),
        (lambda: workload.constant(1, 1e9, 0.001), "duration_s"),
        (lambda: simulate(Scenario(HpaSpec(3)), workload.constant(1, 60, 10)), "sync_period_s"),
        (lambda: sweep([], workload.constant(1, 60)), "scenarios"),
    ],
)
def test_bad_parameters_name_the_field(build: Any, field: str) -> None:
    with pytest.raises(HpaError) as caught:
        build()
    assert caught.value.field == field


def test_other_metrics_are_refused_not_ignored() -> None:
    memory = Metric("Resource", "memory", Target("Utilization", average_utilization=50))
    with pytest.raises(SpecError):
        Scenario(HpaSpec(3, metrics=(memory,)))
    assert issubclass(ServiceError, HpaError)
