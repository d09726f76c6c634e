"""Calibration, comparison and scalability: known truths must come back out of noisy measurements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.hpa import (
    HpaError,
    HpaSpec,
    ObservationError,
    Scenario,
    Service,
    cpu_utilization,
    simulate,
    workload,
)
from labkit.hpa.measure import Scalability, calibrate, calibrate_run, compare, fit_scalability
from labkit.load import LoadResult, constant
from labkit.record import Recording


def measured(cost_ms: float, idle: float, noise: float, seed: int = 1) -> dict[str, Any]:
    """Two pods that answer 4/s, then 20/s together, sampled every 10 s over 10 s."""
    rng = np.random.default_rng(seed)
    times = np.concatenate([np.arange(0, 120, 1 / 4), np.arange(120, 300, 1 / 20)])
    pods = np.where(np.arange(len(times)) % 2, "p0", "p1")
    requests = pd.DataFrame({"t_scheduled_s": times, "failed": False, "pod": pods})
    rows = []
    for name in ("p0", "p1"):
        own = times[pods == name] + 7
        for t in np.arange(30.0, 300, 10):
            count = ((own >= t - 10) & (own < t)).sum()
            rows.append((name, t, 10.0, idle + cost_ms * count / 10 + rng.normal(0, noise)))
    usage = pd.DataFrame(rows, columns=["name", "t_seconds", "window_s", "cpu_millicores"])
    changes = [
        ("Pod", name, what, after, t)
        for name, born in (("p0", 1.0), ("p1", 50.0))
        for what, after, t in (
            ("exists", "True", born),
            ("phase", "Pending", born),
            ("phase", "Running", born + 1.5),
            ("ready", "True", born + 6),
        )
    ]
    transitions = pd.DataFrame(changes, columns=["kind", "name", "what", "after", "t_seconds"])
    return {"usage": usage, "requests": requests, "transitions": transitions, "offset_s": 7.0}


@settings(max_examples=25, deadline=None)
@given(st.floats(5, 60), st.floats(0, 40), st.integers(0, 1000))
def test_cost_and_idle_come_back(cost_ms: float, idle: float, seed: int) -> None:
    found = calibrate(**measured(cost_ms, idle, 2.0, seed))
    assert found.service.cpu_ms_per_request == pytest.approx(cost_ms, abs=1.0)
    assert found.service.idle_millicores == pytest.approx(idle, abs=6.0)


def test_start_up_and_sampling_come_back() -> None:
    found = calibrate(**measured(20, 5, 0.5), base=Service(request_millicores=200))
    assert (found.service.startup_s, found.service.pending_s) == (6.0, 1.5)
    assert found.service.request_millicores == 200
    assert (found.pipeline.scrape_interval_s, found.pipeline.window_s) == (10.0, 10.0)
    assert found.starts_s == (6.0, 6.0)
    assert str(found).startswith("20.0 ms of CPU per request and 5m idle")


def test_a_recording_and_a_load_are_put_on_one_clock() -> None:
    given_ = measured(20, 5, 0.5)
    pods = pd.DataFrame({"name": ["p0", "p1", "other"], "app": ["web", "web", ""]})
    strange = pd.DataFrame([("other", 60.0, 10.0, 900.0)], columns=list(given_["usage"]))
    usage = pd.concat([given_["usage"], strange], ignore_index=True)
    recording = Recording(1000.0, 1.0, pods=pods, usage=usage, transitions=given_["transitions"])
    sent = LoadResult(given_["requests"], constant(4, 1), started_at=1007.0)
    found = calibrate_run(recording, sent, "web", Service(request_millicores=200))
    alone = calibrate(**given_, base=Service(request_millicores=200))
    assert (found.service, found.pipeline) == (alone.service, alone.pipeline)
    with pytest.raises(ObservationError, match=r"(?s)'shop'.*web"):
        calibrate_run(recording, sent, "shop")


def test_pods_that_were_there_before_say_nothing_about_starting() -> None:
    given_ = measured(20, 5, 0.5)
    changes = given_["transitions"]
    given_["transitions"] = changes.loc[~((changes["name"] == "p0") & (changes["after"] == "Pending"))]
    assert calibrate(**given_).starts_s == (6.0,)


def test_shared_evenly_where_nobody_knows_who_answered() -> None:
    given_ = measured(20, 5, 0.5)
    given_["requests"] = given_["requests"].drop(columns="pod")
    ready = pd.DataFrame({"t_seconds": np.arange(0.0, 310, 2), "ready_replicas": 2})
    found = calibrate(**given_, ready=ready)
    assert found.service.cpu_ms_per_request == pytest.approx(20, abs=1)


def test_a_steady_load_cannot_calibrate() -> None:
    given_ = measured(20, 5, 0.5)
    given_["usage"] = given_["usage"].loc[given_["usage"]["t_seconds"] < 110]
    with pytest.raises(HpaError) as caught:
        calibrate(**given_)
    assert caught.value.field == "usage" and "calm and a busy minute" in caught.value.hint


def test_pods_that_do_not_work_cannot_calibrate() -> None:
    given_ = measured(20, 5, 0.1)
    given_["usage"]["cpu_millicores"] = 200 - given_["usage"]["cpu_millicores"]
    with pytest.raises(HpaError, match="does not rise"):
        calibrate(**given_)


def series(*points: tuple[float, int]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["t_seconds", "replicas"])


def test_a_shifted_step_is_found() -> None:
    predicted = series((0, 1), (20, 3), (80, 1), (100, 1))
    found = compare(predicted, series((0, 1), (30, 2), (33, 3), (80, 1), (100, 1)))
    up = found.steps.loc[found.steps["direction"] == "up"]
    assert up["shift_s"].tolist() == [10.0, 13.0]
    assert found.mean_error_replicas == pytest.approx((10 * 2 + 3 * 1) / 101)
    assert found.within_one_percent == pytest.approx(100 * 91 / 101)
    assert "steps came +" in str(found)


def test_a_step_that_only_one_took_has_no_shift() -> None:
    found = compare(series((0, 1), (20, 2), (100, 2)), series((0, 1), (100, 1)))
    (shift,) = found.steps["shift_s"]
    assert math.isnan(shift) and found.within_one_percent == 100


def test_a_detour_is_not_taken_for_the_later_step() -> None:
    predicted = series((0, 2), (30, 1), (40, 2), (170, 1), (200, 1))
    found = compare(predicted, series((0, 2), (172, 1), (200, 1))).steps
    down = found.loc[found["direction"] == "down"].set_index("predicted_s")["shift_s"]
    assert down[170.0] == 2.0 and math.isnan(down[30.0])
    back = compare(series((0, 2), (172, 1), (200, 1)), predicted).steps
    assert back.loc[back["measured_s"] == 170.0, "shift_s"].tolist() == [-2.0]


def test_the_same_series_agrees_with_itself() -> None:
    spec = HpaSpec(8, metrics=(cpu_utilization(60),))
    run = simulate(Scenario(spec), workload.spikes(10, 60, 900, 200, 3600), seed=2)
    found = compare(run.frame, run.frame)
    assert found.mean_error_replicas == 0 and found.within_one_percent == 100
    assert (found.steps["shift_s"] == 0).all() and len(found.steps) > 5


@pytest.mark.parametrize(
    ("predicted", "field"),
    [
        (series((0, 1), (5, 2)), "measured.t_seconds"),
        (series((10, 1), (5, 2)), "predicted.t_seconds"),
        (series(), "predicted.t_seconds"),
        (pd.DataFrame({"t_seconds": [1]}), "predicted.replicas"),
    ],
)
def test_what_cannot_be_compared(predicted: pd.DataFrame, field: str) -> None:
    with pytest.raises(HpaError) as caught:
        compare(predicted, series((50, 1), (60, 2)))
    assert caught.value.field == field


@settings(max_examples=40, deadline=None)
@given(st.floats(10, 500), st.floats(0, 0.5), st.floats(0, 0.05))
def test_a_law_comes_back_from_its_own_points(rate: float, contention: float, coherency: float) -> None:
    law = Scalability(rate, contention, coherency, 1.0)
    counts = [1.0, 2, 3, 4, 6, 8, 12]
    found = fit_scalability(counts, [law.throughput(n) for n in counts])
    assert found.rate == pytest.approx(rate, rel=1e-4)
    assert found.contention == pytest.approx(contention, abs=1e-4)
    assert found.coherency == pytest.approx(coherency, abs=1e-4)
    assert found.r_squared > 0.9999


def test_better_than_linear_is_fitted_without_negative_costs() -> None:
    found = fit_scalability([1, 2, 3, 4], [10, 21, 33, 46])
    assert found.contention == 0 and found.coherency == 0 and found.peak_replicas == math.inf
    assert found.efficiency_percent(4) == pytest.approx(100)


def test_noise_and_saturation() -> None:
    rng = np.random.default_rng(3)
    law = Scalability(40, 0.1, 0.02, 1.0)
    counts = np.tile(np.arange(1.0, 11), 3)
    seen = [law.throughput(n) * rng.normal(1, 0.02) for n in counts]
    found = fit_scalability(counts, seen)
    assert found.peak_replicas == pytest.approx(law.peak_replicas, rel=0.15)
    assert found.throughput(10) == pytest.approx(law.throughput(10), rel=0.03)


@pytest.mark.parametrize(
    ("replicas", "throughput", "field"),
    [
        ([1, 2, 2], [1, 2, 2], "replicas"),
        ([1, 2, 3], [1, 2, 0], "throughput"),
        ([1, 2, 3], [1, 2, math.nan], "throughput"),
    ],
)
def test_too_little_to_fit(replicas: list[float], throughput: list[float], field: str) -> None:
    with pytest.raises(HpaError) as caught:
        fit_scalability(replicas, throughput)
    assert caught.value.field == field
