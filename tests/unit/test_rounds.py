"""Rounds on sick workers: what each fault looks like, and that the look is enough to name it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labkit.checks.lab02 import first_round
from labkit.course.helping import Notes
from labkit.course.progress import Progress
from labkit.labs import rounds
from labkit.labs.rounds import FAULTS, READY, SILENT, Case, Evidence, cause_of, name_it

WELL = Evidence("worker-1", "True", 3.0, "ok", "ok", False, (), 110, False)
LOOKS = {
    "kubelet stopped": {"ready": "Unknown", "heartbeat_s": 30.0, "kubelet": "refused"},
    "configuration refused": {"kubelet": "refused", "reserves_too_much": True},
    "machine hangs": {"kubelet": "no answer", "pod": "no answer"},
    "power cut": {"kubelet": "refused", "pod": "refused"},
    "no client CA": {"kubelet": "unauthorized"},
    "cordoned": {"cordoned": True},
    "forgotten taint": {"taints": ("maintenance=last-week:NoSchedule",)},
    "too few pods": {"pods": 5},
}


def case(cause: str = "machine hangs") -> Case:
    seen = [replace(WELL, node="worker-1"), replace(WELL, node="worker-2", **LOOKS[cause])]
    return Case(1, "worker-2", cause, seen)


def test_there_are_six_faults_or_more_of_both_kinds():
    assert FAULTS.keys() == LOOKS.keys() and len(FAULTS) >= 6
    assert {fault.kind for fault in FAULTS.values()} == {SILENT, READY}


@pytest.mark.parametrize("cause", FAULTS)
def test_what_is_seen_names_the_fault(cause: str):
    assert cause_of(replace(WELL, **LOOKS[cause])) == cause
    assert name_it(case(cause).seen) == ("worker-2", cause)


def test_a_worker_that_is_well_has_no_fault():
    assert cause_of(WELL) == "" and name_it([WELL]) == ("", "")
    assert cause_of(replace(WELL, pod="none")) == "" and cause_of(replace(WELL, pod="refused")) == ""
    assert cause_of(replace(WELL, kubelet="no route", pod="no route")) == "power cut"


def test_a_machine_whose_pod_answers_does_not_hang():
    between = replace(WELL, kubelet="no answer", reserves_too_much=True)
    assert cause_of(between) == "configuration refused", "asked while its kubelet is between two starts"


def test_a_round_tells_nothing_before_it_is_solved():
    hidden = case()
    assert "hangs" not in f"{hidden!r}{hidden}" and hidden.named_s is None
    assert hidden.says("worker-2", "cordoned") == (True, False) and hidden.named_s is None
    assert hidden.says("worker-2", " Machine hangs") == (True, True)
    took = hidden.named_s
    hidden.says("worker-2", "machine hangs")
    assert took is not None and hidden.named_s == took, "the clock stops once"


@pytest.mark.parametrize(
    ("truth", "node", "cause", "key"),
    [
        ("machine hangs", "worker-1", "machine hangs", "node"),
        ("machine hangs", "worker-2", "kubelet stopped", "doors"),
        ("machine hangs", "worker-2", "cordoned", "heartbeat"),
        ("cordoned", "worker-2", "forgotten taint", "papers"),
        ("cordoned", "worker-2", "power cut", "heartbeat"),
        ("cordoned", "worker-2", "it is broken", "list"),
        ("cordoned", "worker-2", "cordoned", "ill"),
        ("cordoned", ..., ..., "node"),
    ],
)
def test_each_mistake_draws_its_hint(truth: str, node: object, cause: object, key: str, monkeypatch):
    monkeypatch.setattr("labkit.checks.lab02.still_ill", lambda *_: "still so")
    monkeypatch.setattr("labkit.checks.lab02.well", lambda *_: rounds_well())
    findings = list(first_round(None, case(truth), node, cause))  # type: ignore[arg-type]
    assert next(f.key for f in findings if f.key) == key
    if key == "node":
        assert not any("worker-2" in f.hint for f in findings), "a hint must not give the worker away"


@pytest.mark.parametrize("cause", FAULTS)
def test_every_cause_is_understood(cause: str, monkeypatch):
    monkeypatch.setattr("labkit.checks.lab02.still_ill", lambda *_: "")
    monkeypatch.setattr("labkit.checks.lab02.well", lambda *_: rounds_well())
    for words in (cause, cause.upper(), f" {cause} "):
        assert all(f.ok for f in first_round(None, case(cause), "worker-2", words))  # type: ignore[arg-type]


def rounds_well():
    from labkit.checks.core import expect

    return expect(True, "it is well")


def test_times_are_kept_with_progress(tmp_path: Path):
    solved, open_case = case(), case()
    solved.says("worker-2", "machine hangs")
    progress = Progress(tmp_path / "progress.db", "ada")
    shown = rounds.summary([solved, open_case], Notes(lambda: progress))
    assert list(shown["cause"]) == ["machine hangs"] * 2
    [event] = progress.events()
    assert event.id == "02-first-round" and event.detail["diagnosed_s"] == solved.named_s


def test_a_chart_has_a_column_for_each_worker():
    assert list(rounds.table(case().seen).columns) == ["worker-1", "worker-2"]
