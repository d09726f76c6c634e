"""Measured times: a run writes them into the notebooks; a test fails where one is missing or not shown."""

from __future__ import annotations

import re

import nbformat
from nbformat import NotebookNode

from labkit.errors import LabError
from labkit.labs.execute import LabRun
from labkit.labs.metadata import Lab, load_lab, read_notebook
from labkit.labs.report import duration

_LINE = re.compile(r"^\*\*Time:\*\*.*$", re.MULTILINE)


def time_line(lab: Lab) -> str:
    """The line of a lab's first cell that says how long it takes."""
    measured = lab.measured_s.get("class")
    machine = (
        f"the cells themselves run for {duration(measured)} (measured)" if measured else "not measured yet"
    )
    return f"**Time:** plan {lab.plan_minutes} minutes with reading and trying; {machine}."


def shown_line(notebook: NotebookNode) -> str | None:
    """The time line as the notebook has it, or None."""
    for cell in notebook.cells[:2]:
        found = _LINE.search(cell.source)
        if found and cell.cell_type == "markdown":
            return found[0]
    return None


def record(run: LabRun, speed: str, provider: str = "embedded") -> None:
    """Write a passed run's seconds into its notebook: metadata, and the line a student reads.

    That line is of the embedded cluster; what other providers took is in the metadata `measured_on` alone.

    Raises:
        LabError: the notebook has no line that begins with "**Time:**".
    """
    notebook = read_notebook(run.lab.path)
    about = notebook.metadata["labkit"]
    if provider == "embedded":
        about["measured_s"][speed] = round(run.seconds, 1)
    else:
        about.setdefault("measured_on", {}).setdefault(provider, {})[speed] = round(run.seconds, 1)
    nbformat.write(notebook, run.lab.path)  # type: ignore[no-untyped-call]
    line = time_line(load_lab(run.lab.path))
    for cell in notebook.cells[:2]:
        if cell.cell_type == "markdown" and _LINE.search(cell.source):
            cell.source = _LINE.sub(line, cell.source)
            nbformat.write(notebook, run.lab.path)  # type: ignore[no-untyped-call]
            return
    raise LabError(
        f"{run.lab.name} shows no time.", "Its first cell needs a line that begins with **Time:**."
    )
