"""Which cells of a lab are exercises, and what is to be tried with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nbformat import NotebookNode

from labkit.checks import find
from labkit.course.cells import check_id_of, exercise_of
from labkit.course.exercises import Exercise, load, without_solution
from labkit.errors import ConfigError, LabError
from labkit.labs.metadata import tags

_SHORTEST_S = 30.0


@dataclass(frozen=True)
class Trial:
    """An exercise in a notebook.

    Attributes:
        first: index of the first cell that the learner writes.
        check: index of the cell with its check.
        deadline_s: how long a wrong answer may take to be seen.
        skeletons: id of each cell that the learner writes → what is in it at first.
    """

    exercise: Exercise
    first: int
    check: int
    deadline_s: float
    skeletons: dict[str, str]


def trials_of(notebook: NotebookNode, notebooks: Path, wrong_answers: bool = True) -> list[Trial]:
    """The exercises of a lab, in their order.

    Args:
        notebooks: folder of the labs.
        wrong_answers: False leaves them out.

    Raises:
        LabError: a cell names an exercise that is not described, or has no marks around its solution or no
            check after it; a described one has no cell; a wrong answer writes into another cell.
    """
    lab = str(notebook.metadata.get("labkit", {}).get("lab", ""))
    described = load(notebooks, lab).by_id if lab else {}
    cells: dict[str, list[int]] = {}
    for index, cell in enumerate(notebook.cells):
        if name := exercise_of(cell):
            cells.setdefault(name, []).append(index)
    if odd := sorted(cells.keys() ^ described.keys()):
        raise LabError(f"Lab {lab}: exercises and their descriptions differ: {', '.join(odd)}.")
    trials = [_trial(notebook, described[name], places) for name, places in cells.items()]
    if wrong_answers:
        return trials
    return [replace(trial, exercise=replace(trial.exercise, wrong=())) for trial in trials]


def _trial(notebook: NotebookNode, exercise: Exercise, places: list[int]) -> Trial:
    skeletons = {notebook.cells[index].id: skeleton_of(notebook.cells[index]) for index in places}
    for wrong in exercise.wrong:
        if other := sorted(wrong.cells.keys() - skeletons.keys()):
            raise LabError(f"Exercise {exercise.id}, {wrong.name!r}: no cells of it are {', '.join(other)}.")
    later = range(places[-1] + 1, len(notebook.cells))
    check = next((i for i in later if "check" in tags(notebook.cells[i])), None)
    if check is None or check_id_of(notebook.cells[check].source) != exercise.id:
        raise LabError(f"Exercise {exercise.id}: the next check after its cells is not its own.")
    return Trial(exercise, places[0], check, _deadline_s(exercise.id), skeletons)


def _deadline_s(check_id: str) -> float:
    """As long as its check looks, and half a minute at least; the same for one that a notebook defines."""
    try:
        return max(_SHORTEST_S, find(check_id).deadline_s)
    except ConfigError:
        return _SHORTEST_S


def skeleton_of(cell: NotebookNode) -> str:
    """What a learner finds in an exercise's cell.

    Raises:
        LabError: it has no marks around its solution.
    """
    return without_solution(cell.source, str(cell.metadata.get("labkit", {}).get("skeleton", "")))
