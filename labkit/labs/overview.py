"""How far a learner is: each lab's checks and exercises beside what progress knows of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

from labkit.course import place
from labkit.course.cells import check_id_of
from labkit.course.exercises import load
from labkit.course.progress import Progress, State, learner
from labkit.errors import LabError
from labkit.labs.metadata import find_labs, read_notebook, tags


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
    name: str
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


class StartPage:
    """The labs with their minutes and the learner's progress, as the start page shows them."""

    def __init__(self) -> None:
        self.who, self.labs = learner(), overview()

    def __repr__(self) -> str:
        return table(self.labs)

    def _repr_html_(self) -> str:
        rows = [
            (
                f'<a href="notebooks/{escape(lab.name)}.ipynb">{escape(lab.lab)} · {escape(lab.title)}</a>',
                f"{lab.minutes} min",
                _bar(len(lab.passed), lab.checks, "checks"),
                f"{lab.points} of {lab.of_points} points" if lab.of_points else "",
            )
            for lab in self.labs
        ]
        cells = "".join(
            f'<tr><td style="{_CELL}">{title}</td>'
            + "".join(f'<td style="{_CELL};white-space:nowrap">{one}</td>' for one in facts)
            + "</tr>"
            for title, *facts in rows
        )
        done = sum(len(lab.passed) == lab.checks for lab in self.labs)
        head = (
            f"<p>{escape(self.who)}: {done} of {len(self.labs)} labs done. Run this cell again to update.</p>"
        )
        return f'{head}<table style="background:none;color:inherit;font:inherit">{cells}</table>'


_EDGE = "border-bottom:1px solid rgba(128,128,128,.4)"
_CELL = f"text-align:left;padding:.3em 1em .3em 0;{_EDGE}"


def _bar(done: int, of: int, what: str) -> str:
    width = round(100 * done / of) if of else 0
    bar = f'<div style="width:{width}%;height:100%;background:#2a9d4a;border-radius:4px"></div>'
    frame = "display:inline-block;width:90px;height:8px;border-radius:4px;background:rgba(128,128,128,.25)"
    text = f"{done} of {of} {what}"
    return f'<span role="img" aria-label="{text}" style="{frame}">{bar}</span> {text}'


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
                lab.name,
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
