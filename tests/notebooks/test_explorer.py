"""The explorer's notebook: its stored outputs are what it computes, and its exercise is proved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from labkit.checks.core import prove, prove_right, prove_wrong
from labkit.course.exercises import load, solution
from labkit.labs.trials import skeleton_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "hpa-explorer.ipynb"


def test_outputs_are_reproduced():
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(NOTEBOOK)]
    env = {**os.environ, "LABKIT_HEADLESS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert f"{len(cells)} passed" in run.stdout


def test_only_deterministic_outputs_are_stored():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        assert not (ignored and cell.outputs), cell.id
        assert not [one for one in cell.outputs if "image/png" in one.get("data", {})], cell.id


def test_the_exercise_is_proved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    cells = {cell.id: cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    exercise = load(NOTEBOOK.parent, "10").by_id["10-day"]
    own, check = cells["day-write"], cells["day-check"].source
    names: dict[str, object] = {}
    exec(cells["imports"].source, names)
    exec(skeleton_of(own), names)
    assert prove(check, names)["fails"]
    for wrong in exercise.wrong:
        exec(wrong.cells[own.id], names)
        assert prove_wrong(check, names, wrong.hint, 0)["fails"], wrong.name
    for _ in range(2):
        exec(solution(own.source), names)
        assert prove_right(check, names)["passes"]
