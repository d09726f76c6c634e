"""How far a learner is: each lab's checks and exercises beside what progress knows of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from labkit.course import place
from labkit.course.exercises import load
from labkit.course.progress import Progress, State
from labkit.errors import LabError
from labkit.labs.metadata import check_id_of, find_labs, read_notebook, tags


@dataclass(frozen=True)
class LabProgress:
    """A lab and how far the learner is with it.

    Attributes:
        checks: how many it has.
        passed: ids of those that passed at least once.
        points, of_points: of its exercises; a revealed solution counts none.
        hints: how many levels of help were shown.
        revealed: ids of exercises whose solution was shown.
    """

    lab: str
    title: str
    minutes: int
    checks: int
    passed: tuple[str, ...]
    exercises: int
    points: int
    of_points: int
    hints: int
    revealed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def overview(progress: Progress | None = None) -> list[LabProgress]:
    """All labs in their order.

    Raises:
        LabError: the course is not at hand.
        ProgressError: progress cannot be read.
    """
    notebooks = place.sources()
    if notebooks is None:
        raise LabError(
            "There is no course here.", "Change to your course folder, or make one: labkit course FOLDER"
        )
    states = (progress or Progress()).states()
    rows = []
    for lab in find_labs(notebooks):
        cells = read_notebook(lab.path).cells
        ids = [check_id_of(cell.source) or "" for cell in cells if "check" in tags(cell)]
        exercises = load(notebooks, lab.number)
        met = {name: states.get(name, State(name)) for name in ids}
        revealed = tuple(name for name in exercises.by_id if name in met and met[name].revealed)
        done = [
            e
            for e in exercises.by_id.values()
            if e.id in met and met[e.id].passed_at and e.id not in revealed
        ]
        rows.append(
            LabProgress(
                lab.number,
                lab.title,
                lab.plan_minutes,
                len(ids),
                tuple(name for name in ids if met[name].passed_at),
                len(exercises.by_id),
                sum(each.points for each in done),
                exercises.points,
                sum(met[name].hints for name in exercises.by_id if name in met),
                revealed,
            )
        )
    return rows


def table(labs: list[LabProgress]) -> str:
    """As text."""
    shown = Table(box=None, pad_edge=False)
    for column in ("lab", "title"):
        shown.add_column(column)
    for column in ("minutes", "checks", "points", "hints", "solutions shown"):
        shown.add_column(column, justify="right")
    for lab in labs:
        checks, points = f"{len(lab.passed)}/{lab.checks}", f"{lab.points}/{lab.of_points}"
        shown.add_row(
            lab.lab, lab.title, str(lab.minutes), checks, points, str(lab.hints), str(len(lab.revealed))
        )
    console = Console(width=100, no_color=True)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip()
