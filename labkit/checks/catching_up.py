"""Catching up: the solved cells up to a check, carried out visibly in the learner's kernel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.checks.exercise import sources
from labkit.course.cells import cells_of, check_id_of, exercise_of, notebooks_of
from labkit.course.exercises import Exercise, load, solution
from labkit.course.numbers import lab_of
from labkit.errors import LabError


@dataclass(frozen=True)
class Solved:
    """A cell to carry out.

    Attributes:
        exercise: the exercise whose solution it is; "" for another cell.
    """

    id: str
    source: str
    exercise: str = ""


class CatchUpStopped(LabError):
    """A cell failed while catching up."""


def solved_up_to(
    notebooks: Path, check_id: str, passed: Collection[str], known: Collection[str]
) -> list[Solved]:
    """The cells that lead to a check, from the last check before it that has passed in this kernel.

    Args:
        passed: ids of checks that have passed in this kernel.
        known: names of the kernel's variables: parameters that are set are not set again.

    Raises:
        LabError: no lab has that check.
    """
    for path in notebooks_of(notebooks, check_id):
        cells = [cell for cell in cells_of(path) if cell.get("cell_type") == "code"]
        asks = [_check_of(cell) for cell in cells]
        if check_id not in asks:
            continue
        end = asks.index(check_id)
        begin = max((i + 1 for i in range(end) if asks[i] in passed), default=0)
        chosen = [cell for cell in cells[begin : end + 1] if not _is_set(cell, known)]
        return [Solved(c["id"], solution("".join(c["source"])), exercise_of(c)) for c in chosen]
    raise LabError(
        f"No lab has a check {check_id!r}.", 'Catch up to a check of this lab: catch_up("00-service")'
    )


def carry_out(
    cells: Sequence[Solved],
    run: Callable[[str], BaseException | None],
    show: Callable[[str], None],
    folder: Path,
) -> None:
    """Show each cell and run it.

    A file of the learner's that a solution is about to replace is kept beside it.

    Args:
        run: executes a source; what it raised, or None.
        folder: of the notebook.

    Raises:
        CatchUpStopped: a cell failed.
    """
    for cell in cells:
        if cell.exercise and (kept := _keep(_exercise(cell.exercise), folder)):
            show(f"Your own {kept[0]} is kept as {kept[1]}.")
        show(f"In [{cell.id}]: {cell.source}")
        error = run(cell.source)
        if error is not None:
            raise CatchUpStopped(
                f"Catching up stopped at the cell {cell.id}: {type(error).__name__}: {error}",
                "Mend what it names, then catch up again: it goes on after the last check that has passed.",
            )


def _exercise(name: str) -> Exercise | None:
    return load(sources(), lab_of(name)).by_id.get(name)


def _keep(exercise: Exercise | None, folder: Path) -> tuple[str, str] | None:
    """Keep the learner's file; its name and that of the copy, None where there is none."""
    if exercise is None or not exercise.file or exercise.is_open(folder):
        return None
    path = folder / exercise.file
    n = 1
    while (copy := path.with_name(f"{path.stem}.mine-{n}{path.suffix}")).exists():
        n += 1
    copy.write_bytes(path.read_bytes())
    return exercise.file, str(copy.relative_to(folder))


def _check_of(cell: dict[str, Any]) -> str:
    return check_id_of("".join(cell["source"])) or "" if "check" in cell["metadata"].get("tags", []) else ""


def _is_set(cell: dict[str, Any], known: Collection[str]) -> bool:
    return "parameters" in cell["metadata"].get("tags", []) and "cluster_name" in known
