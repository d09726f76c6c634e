"""The runner tries exercises: untouched, each wrong answer, and the solution twice. Without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit.labs.execute import LabRun, execute
from labkit.labs.metadata import Lab
from tests.notebooks.tiny import code, write

PARAMETERS = {"provider": "embedded", "speed": "ci", "cluster_name": "none"}
SETUP = """\
from pathlib import Path
from labkit.checks import check, define, expect
@define("90-sum", "The sum is right", deadline_s=0)
def _sum(answer):
    yield expect(answer is not ..., "there is a sum", "there is none", "open")
    yield expect(answer == 4, "it is 4", f"it is {answer}", "small" if answer is not ... and answer < 4 else "large")
"""
SOLVED = "### BEGIN SOLUTION\nanswer = 2 + 2\n### END SOLUTION"
ABOUT: dict[str, Any] = {
    "title": "a sum",
    "points": 1,
    "where": "Count.",
    "hints": {"small": "More.", "large": "Less."},
    "nearly": "2 + …",
    "wrong": [
        {"name": "too small", "hint": "small", "cells": {"sum": "answer = 3"}},
        {"name": "too large", "hint": "large", "cells": {"sum": "answer = 5"}, "undo": "undone = True"},
    ],
}


def lab(
    folder: Path,
    about: dict[str, Any] = ABOUT,
    check: str = 'check("90-sum", answer)',
    after: str = "assert answer == 4 and undone",
    solved: str = SOLVED,
) -> Lab:
    """A lab with one exercise, whose answer is 4."""
    (folder / "exercises").mkdir(exist_ok=True)
    (folder / "exercises" / "90.yaml").write_text(yaml.safe_dump({"90-sum": about}))
    exercise = {"exercise": "90-sum", "skeleton": "answer = ...  # YOUR TURN"}
    cells = [
        code("setup", SETUP),
        code("sum", solved, "exercise", **exercise),
        code("sum-check", check, "check"),
        code("after", after),
    ]
    return write(folder, cells)


def ran(one: Lab, folder: Path, proving: bool = True, **options: bool) -> LabRun:
    return execute(one, folder / "out.ipynb", PARAMETERS, proving=proving, **options)


def test_everything_is_tried_and_the_lab_goes_on_with_the_solution(tmp_path: Path):
    run = ran(lab(tmp_path), tmp_path)
    assert run.state == "passed", (run.reason, run.failure)
    assert run.exercises == ["90-sum"] and [(p.id, p.fails) for p in run.proofs] == [("90-sum", True)]
    assert [(t.what, t.ok) for t in run.trials] == [
        ("wrong answer: too small", True),
        ("wrong answer: too large", True),
        ("solution applied twice", True),
    ]


def test_without_proving_nothing_is_tried(tmp_path: Path):
    run = ran(lab(tmp_path, after="assert answer == 4"), tmp_path, proving=False)
    assert run.state == "passed" and run.exercises == ["90-sum"] and run.trials == []


def test_wrong_answers_can_be_left_out(tmp_path: Path):
    run = ran(lab(tmp_path, after="assert answer == 4"), tmp_path, wrong_answers=False)
    assert run.state == "passed" and [p.fails for p in run.proofs] == [True]
    assert [(t.what, t.ok) for t in run.trials] == [("solution applied twice", True)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "right after all", "hint": "small", "cells": {"sum": "answer = 4"}}, "it drew no hint"),
        (
            {"name": "another mistake", "hint": "small", "cells": {"sum": "answer = 9"}},
            "it drew the hint 'large'",
        ),
    ],
)
def test_a_wrong_answer_that_does_not_draw_its_hint_fails_the_lab(
    tmp_path: Path, wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labkit.labs.trials._SHORTEST_S", 1.0)
    about = {**ABOUT, "wrong": [ABOUT["wrong"][1], wrong]}
    run = ran(lab(tmp_path, about), tmp_path)
    assert run.state == "failed" and said in run.reason and wrong["name"] in run.reason


def test_a_check_that_passes_untouched_fails_the_lab(tmp_path: Path):
    run = ran(lab(tmp_path, check='answer = 4\ncheck("90-sum", answer)', after="pass"), tmp_path)
    assert run.state == "failed" and "before its step" in run.reason


def test_a_solution_that_works_only_once_fails_the_lab(tmp_path: Path):
    solved = SOLVED.replace(
        "answer = 2 + 2", "uses = globals().get('uses', 0) + 1\nanswer = 4 if uses == 1 else 7"
    )
    run = ran(lab(tmp_path, solved=solved, after="pass"), tmp_path)
    assert run.state == "failed" and "solution applied twice" in run.reason and "it is 7" in run.reason


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([code("sum", "answer = 4", "exercise", exercise="90-sum")], "BEGIN SOLUTION"),
        ([code("sum", SOLVED, "exercise", exercise="90-other")], "differ: 90-other, 90-sum"),
        ([], "differ: 90-sum"),
        ([code("sum", SOLVED, "exercise", exercise="90-sum")], "not its own"),
    ],
)
def test_a_lab_whose_exercises_do_not_fit_is_told(tmp_path: Path, cells: list[Any], said: str):
    lab(tmp_path)
    one = write(tmp_path, [code("setup", SETUP), *cells])
    run = ran(one, tmp_path)
    assert run.state == "failed" and said in run.reason
