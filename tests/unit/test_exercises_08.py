"""What the exercises of lab 08 judge without a cluster: right and wrong answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labkit import load
from labkit.checks import lab08
from labkit.course.exercises import solution
from labkit.course.helping import solved_cells
from labkit.hpa import HpaSpec, Pipeline, Service, to_yaml
from labkit.hpa.byhand import CASES
from labkit.hpa.contest import DEFAULT, measured, most_useful, p95_of, simulated
from labkit.hpa.measure import Calibration, Scalability
from labkit.hpa.workload import Load
from labkit.load.result import frame_of
from labkit.record import Recording
from labkit.record.facts import COLUMNS

from .wrong_answers import NOTEBOOKS, keys, written, wrong_answers

RIGHT = {"tolerance": 4, "missing": 5, "max": 6}


# Lab 08: three decisions by hand


def test_the_controller_decides_the_three_cases_against_the_formula() -> None:
    assert {name: case.decide().replicas for name, case in CASES.items()} == RIGHT
    assert {name: case.formula for name, case in CASES.items()} == {"tolerance": 5, "missing": 6, "max": 10}
    reasons = {name: " ".join(case.decide().reasons) for name, case in CASES.items()}
    assert "tolerance" in reasons["tolerance"] and "maxReplicas 6" in reasons["max"]
    assert "no metric" in reasons["missing"]


@pytest.mark.parametrize(
    ("answers", "missing"),
    [
        ((4, 5, 6), []),
        ((5, 5, 6), ["tolerance"]),
        ((4, 6, 6), ["missing"]),
        ((4, 5, 10), ["max"]),
        ((..., ..., ...), ["tolerance", "missing", "max"]),
    ],
)
def test_decisions_by_hand(answers: tuple[Any, ...], missing: list[str]) -> None:
    assert keys(lab08.by_hand(*answers)) == missing


# Lab 08: better and cheaper than the default


def service(cost_ms: float = 22, startup_s: float = 3) -> Calibration:
    """A calibration as a machine of a given speed would have it."""
    one = Service(
        cpu_ms_per_request=cost_ms,
        request_millicores=200,
        limit_millicores=500,
        idle_millicores=8,
        startup_s=startup_s,
        pending_s=1,
    )
    return Calibration(one, Pipeline(10, 10), pd.DataFrame(), 0.0, ())


def tomorrow(cost_ms: float, high_s: float, tail_s: float) -> load.Profile:
    return load.constant(3, 6) + load.constant(round(1.1 * 492 / cost_ms), high_s) + load.constant(3, tail_s)


PLACES = [
    (cost, startup, *speed)
    for cost in (18, 22, 30, 36)
    for startup in (1, 8)
    for speed in ((24, 16), (60, 60))
]


@pytest.mark.parametrize(("cost", "startup", "high", "tail"), PLACES)
def test_the_solution_is_right_on_any_machine(tmp_path: Path, cost, startup, high, tail) -> None:
    cells = {name: solution(text) for name, text in solved_cells(NOTEBOOKS, "08-simulated").items()}
    file = written(cells, tmp_path)
    assert keys(lab08.simulated(file, service(cost, startup), tomorrow(cost, high, tail))) == []


@pytest.mark.parametrize(("cost", "startup", "high", "tail"), PLACES)
@pytest.mark.parametrize("wrong", wrong_answers("08-simulated"))
def test_wrong_autoscalers_draw_their_hint_on_any_machine(tmp_path, wrong, cost, startup, high, tail) -> None:
    file = written(wrong.cells, tmp_path)
    assert keys(lab08.simulated(file, service(cost, startup), tomorrow(cost, high, tail)))[0] == wrong.hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "unreadable"),
        ("kind: Service", "unreadable"),
        ("a: [", "unreadable"),
        (to_yaml(HpaSpec(6, name="price", namespace="shop", target_name="pricing")), "target"),
        (to_yaml(HpaSpec(6, name="pricing", namespace="shop", target_name="orders")), "target"),
        (
            to_yaml(replace(DEFAULT, min_replicas=2, metrics=(replace(DEFAULT.metrics[0], name="memory"),))),
            "metric",
        ),
    ],
)
def test_what_is_no_autoscaler_of_pricing(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "hpa.yaml").write_text(text)
    assert keys(lab08.simulated(tmp_path / "hpa.yaml", service(), tomorrow(22, 24, 16)))[0] == key


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert keys(lab08.simulated(tmp_path / "none", service(), tomorrow(22, 24, 16))) == ["unreadable"]


def test_lost_requests_count_as_slow() -> None:
    frame = pd.DataFrame({"latency_ms": [10.0, 900.0], "served_rps": [96.0, 4.0], "lost_rps": [0.0, 0.0]})
    assert p95_of(frame) == 10
    assert p95_of(frame.assign(lost_rps=[0.0, 10.0])) == float("inf")
    assert simulated(DEFAULT, service(), Load(np.full(30, 3.0), 1.0)).replica_seconds == 30


def recorded(counts: list[int], latencies: list[float], failed: int = 0) -> tuple[Recording, load.LoadResult]:
    """A run of one second per count, and as many requests as latencies."""
    rows = [[float(t), "shop", "pricing", n, n, n, n, ""] for t, n in enumerate(counts)]
    table = pd.DataFrame(rows, columns=COLUMNS["deployments"])
    step = len(counts) / len(latencies)
    requests = [[i * step, ms, 0.1, 200, "", "", "", 0.1, 0.1] for i, ms in enumerate(latencies)]
    for row in requests[:failed]:
        row[3:5] = [503, "status"]
    result = load.LoadResult(
        frame_of(requests, ["pod", "version"]), load.constant(1, len(counts)), 1000.0, 1.0, 9.0
    )
    return Recording(1000.0, 1.0, deployments=table), result


def test_a_real_run_is_measured_like_a_simulated_one() -> None:
    score = measured(*recorded([2] * 40 + [3] * 6, [40.0] * 99 + [2000.0]), "pricing", "shop")
    assert (score.replica_seconds, score.p95_ms) == (98, 40)
    assert measured(*recorded([1] * 10, [40.0] * 100, failed=6), "pricing", "shop").p95_ms == float("inf")


@pytest.mark.parametrize(
    ("run", "missing"),
    [
        (recorded([2] * 46, [90.0] * 100), []),
        (recorded([2] * 46, [90.0] * 50 + [700.0] * 50), []),
        (recorded([2] * 46, [90.0] * 94 + [900.0] * 6), ["p95 was at most 750 ms"]),
        (recorded([2] * 46, [90.0] * 100, failed=6), ["p95 was at most 750 ms"]),
        (recorded([6] * 46, [90.0] * 100), ["it cost less than the default"]),
        (None, ["your autoscaler met the load"]),
    ],
)
def test_what_is_a_promise_kept(run, missing: list[str]) -> None:
    findings = lab08.promise_kept(run, service(), tomorrow(22, 24, 16))
    assert [finding.text for finding in findings if not finding.ok] == missing


# Lab 08: maxReplicas from the law; the request that is missing


@pytest.mark.parametrize(
    ("law", "up_to", "right"),
    [
        (Scalability(20, 0, 0, 1), 4, 8),
        (Scalability(20, 1, 0, 1), 4, 1),
        (Scalability(20, 0.1, 0.01, 1), 6, 3),
        (Scalability(20, 0, 0.02, 1), 6, 4),
    ],
)
def test_max_replicas_follows_from_the_law(law: Scalability, up_to: int, right: int) -> None:
    throughput = {1: 20.0, 2: 38.0, up_to: 60.0}
    assert most_useful(law.throughput, up_to) == right
    assert keys(lab08.max_replicas(law, throughput, right)) == []
    assert keys(lab08.max_replicas(law, throughput, right + 1)) == ["high"]
    if right > 1:
        assert keys(lab08.max_replicas(law, throughput, right - 1)) == ["low"]
    for nothing in (..., 2.5, "3", True, 0):
        assert keys(lab08.max_replicas(law, throughput, nothing)) == ["count"]


def test_a_limit_stands_for_a_request_and_memory_does_not() -> None:
    def deployment(*resources: dict[str, Any]) -> dict[str, Any]:
        containers = [{"name": f"c{n}", "resources": each} for n, each in enumerate(resources)]
        return {"spec": {"template": {"spec": {"containers": containers}}}}

    assert lab08.without_cpu_request(deployment({"requests": {"cpu": "1m"}}, {"limits": {"cpu": "1"}})) == []
    assert lab08.without_cpu_request(deployment({"requests": {"memory": "1Gi"}}, {})) == ["c0", "c1"]
