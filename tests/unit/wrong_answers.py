"""What the tests of exercises share: the wrong answers of an exercise, and what a check misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit.course.exercises import load
from labkit.course.numbers import lab_of

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def keys(findings: Any) -> list[str]:
    """Keys of the findings that were not met, in their order."""
    return [finding.key for finding in findings if not finding.ok]


def wrong_answers(exercise_id: str) -> list[Any]:
    """The wrong answers of an exercise, as parameters of a test."""
    found = load(NOTEBOOKS, lab_of(exercise_id)).by_id[exercise_id]
    return [pytest.param(one, id=one.name) for one in found.wrong]


def written(cells: dict[str, str], folder: Path) -> Path:
    """What %%writefile would write of the only cell."""
    (text,) = cells.values()
    path = folder / "answer"
    path.write_text(text.partition("\n")[2])
    return path
