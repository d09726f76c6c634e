"""The checks of lab 08 on recordings made up for it: what they must accept, and what not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest

from labkit.checks.lab08 import prediction_holds, scalability_measured, scaled_down, scaled_up
from labkit.record import Recording

STARTED = 1000.0


@dataclass
class Played:
    """Stands where a Recorder would: hands out a recording."""

    desired: list[tuple[float, int]]

    def recording(self) -> Recording:
        rows = [{"t_seconds": t, "namespace": "shop", "name": "pricing", "desired_replicas": n, "ready_replicas": n}
                for t, n in self.desired]  # fmt: skip
        table = pd.DataFrame(rows)
        return Recording(STARTED, 1.0, hpas=table, deployments=table)


def failed(findings) -> list[str]:
    return [finding.text for finding in findings if not finding.ok]


def series(*changes: tuple[float, int], end: float = 120) -> Played:
    """One sample a second; each change holds until the next."""
    samples = []
    for t in range(int(end)):
        samples.append((float(t), [n for at, n in changes if at <= t][-1]))
    return Played(samples)


def test_a_good_run_passes():
    run = series((0, 1), (18, 2), (28, 3), (48, 4), (93, 2), (108, 1))
    assert failed(scaled_up(run, STARTED + 6)) == []
    assert failed(scaled_down(run, STARTED + 54)) == []


def test_still_rising_while_the_load_falls_is_no_scale_down():
    run = series((0, 1), (18, 2), (56, 4), (93, 2), (108, 1))
    assert failed(scaled_down(run, STARTED + 54)) == []


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (series((0, 1)), "the autoscaler scaled up"),
        (series((0, 1), (40, 4)), "within 25 s of the load step"),
        (series((0, 1), (10, 2)), "two more pods, at least, became ready"),
    ],
)
def test_what_is_no_good_scale_up(run, said):
    assert said in failed(scaled_up(run, STARTED + 6))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (series((0, 4)), "the autoscaler scaled down"),
        (series((0, 4), (60, 1)), "not at once: the stabilization window held the number"),
        (series((0, 4), (93, 2)), "down to one replica in the end"),
        (series((0, 4), end=50), "the autoscaler scaled down"),
    ],
)
def test_what_is_no_good_scale_down(run, said):
    assert said in failed(scaled_down(run, STARTED + 54))


def model(*changes: tuple[float, int], end: float = 120) -> pd.DataFrame:
    """A prediction: one row a second."""
    times = [float(t) for t in range(int(end))]
    return pd.DataFrame(
        {"t_seconds": times, "replicas": [[n for at, n in changes if at <= t][-1] for t in times]}
    )


def test_a_prediction_may_be_late_or_off_by_one_but_not_wrong():
    run = series((0, 1), (18, 2), (28, 3), (93, 1)).recording()
    assert failed(prediction_holds(run, model((0, 1), (12, 2), (22, 4), (88, 1)))) == []
    (wrong,) = [f for f in prediction_holds(run, model((0, 1), (12, 6))) if not f.ok]
    assert "75 %" in wrong.text and "replicas off on average" in wrong.hint


def test_a_recording_without_the_autoscaler_proves_no_prediction():
    empty = Recording(STARTED, 1.0, pods=pd.DataFrame({"name": ["a"]}))
    (missing,) = prediction_holds(empty, model((0, 1)))
    assert not missing.ok and "1 samples of pods" in missing.hint


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({}, "three or more replica counts were measured"),
        ({1: 20.0, 2: 38.0}, "three or more replica counts were measured"),
        ({1: 20.0, 2: 19.0, 4: 18.0}, "4 replicas did more than 1"),
    ],
)
def test_what_is_no_measured_scalability(measured, said):
    assert said in failed(scalability_measured(measured))


def test_measured_scalability_passes():
    assert failed(scalability_measured({1: 20.0, 2: 38.0, 4: 50.0})) == []
