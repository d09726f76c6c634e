"""Execute one lab's notebook headless and tell what came of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from traceback import format_exception
from typing import Any

import nbformat
import papermill  # type: ignore[import-untyped]
from nbformat import NotebookNode
from papermill.engines import papermill_engines  # type: ignore[import-untyped]
from papermill.iorw import write_ipynb  # type: ignore[import-untyped]

from labkit.checks import find
from labkit.checks.core import MIME
from labkit.course.cells import check_id_of, exercise_of
from labkit.errors import ConfigError, LabError
from labkit.labs.kernel import ENGINE
from labkit.labs.metadata import Lab, read_notebook, tags
from labkit.labs.trials import trials_of

_WRONG = "wrong answer: "
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class CellDone:
    """Progress: a code cell has ended.

    Attributes:
        n, total: it is the n-th of the lab's `total` code cells, from 1.
    """

    lab: str
    n: int
    total: int
    first_line: str
    seconds: float
    ok: bool


@dataclass(frozen=True)
class CheckRecord:
    """A check as it ran in a lab, or did not get its turn (`state` "not reached")."""

    id: str
    title: str
    state: str
    seconds: float
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProofRecord:
    """Whether a check failed before its step, as it must."""

    id: str
    fails: bool
    said: str


@dataclass(frozen=True)
class TrialRecord:
    """What came of trying something with an exercise.

    Attributes:
        id: of the exercise.
        what: "wrong answer: …", or "solution applied twice".
        ok: a wrong answer drew its hint; a solution passed again.
    """

    id: str
    what: str
    ok: bool
    said: str

    @property
    def of_wrong_answer(self) -> bool:
        """Whether it tells of a wrong answer, not of the solution."""
        return self.what.startswith(_WRONG)


@dataclass(frozen=True)
class Failure:
    """The cell that stopped a lab."""

    cell_id: str
    source: str
    error: str
    traceback: str
    events: tuple[str, ...] = ()


@dataclass
class LabRun:
    """What came of a lab.

    Attributes:
        state: "passed", "failed" or "skipped".
        reason: why it was skipped, or failed, in one line.
        notebook: the executed notebook; None when skipped.
        exercises: ids of the exercises that the learner would have written.
        trials: what came of their wrong answers, and of applying their solutions twice.
        figures: PNG files, filled in by the report.
    """

    lab: Lab
    state: str
    seconds: float = 0.0
    reason: str = ""
    notebook: Path | None = None
    cells: int = 0
    checks: list[CheckRecord] = field(default_factory=list)
    proofs: list[ProofRecord] = field(default_factory=list)
    exercises: list[str] = field(default_factory=list)
    trials: list[TrialRecord] = field(default_factory=list)
    failure: Failure | None = None
    figures: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, paths as names."""
        return {
            "lab": self.lab.number,
            "name": self.lab.name,
            "title": self.lab.title,
            "state": self.state,
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
            "cells": self.cells,
            "checks": [asdict(one) for one in self.checks],
            "proofs": [asdict(one) for one in self.proofs],
            "exercises": self.exercises,
            "trials": [asdict(one) for one in self.trials],
            "failure": asdict(self.failure) if self.failure else None,
            "figures": [path.name for path in self.figures],
        }


def execute(
    lab: Lab,
    output: Path,
    parameters: dict[str, Any],
    *,
    proving: bool = False,
    wrong_answers: bool = True,
    on_cell: Callable[[CellDone], None] = lambda _: None,
    alone: Callable[[bool], float] = lambda _: 0.0,
    desk: Path | None = None,
) -> LabRun:
    """Execute a lab; the executed notebook is written to `output` cell by cell, also when a cell fails.

    Args:
        parameters: values for the cell tagged `parameters`.
        proving: run each check before its step too, where it must fail; but not where its cell says, by
            `stands_on`, that it is true from the beginning on this provider.
        wrong_answers: try each exercise's wrong answers too, when proving.
        alone: called with True before what the lab measures, and with False after it; returns the seconds
            for which it waited, which count neither as the lab's nor against its limit.
        desk: folder in which the cells run, and write what a learner would; by default the notebook's own.

    Returns:
        The run; a failing cell is no exception but a `failure`, and so is a kernel that cannot be had.
    """
    started, waited_s = time.monotonic(), 0.0
    first, last = lab.alone or ("", "")
    code_cells = [cell.id for cell in read_notebook(lab.path).cells if cell.cell_type == "code"]

    def limit_of(cell: NotebookNode) -> float:
        own = cell.metadata.get("labkit", {}).get("limit_s", lab.cell_limit_s)
        return max(0.5, min(float(own), started + waited_s + lab.limit_s - time.monotonic()))

    def begins(cell: NotebookNode) -> None:
        nonlocal waited_s
        if cell.id == first:
            waited_s += alone(True)

    def proves(cell: NotebookNode) -> bool:
        true_on = cell.metadata.get("labkit", {}).get("stands_on", [])
        return proving and parameters.get("provider") not in true_on

    def told(_: int, cell: NotebookNode, seconds: float, ok: bool) -> None:
        nonlocal waited_s
        if cell.id in code_cells:
            line = next((line for line in cell.source.splitlines() if line.strip()), "")
            on_cell(CellDone(lab.name, code_cells.index(cell.id) + 1, len(code_cells), line, seconds, ok))
        if cell.id == last and ok:
            waited_s += alone(False)

    output.parent.mkdir(parents=True, exist_ok=True)
    failure: Failure | None = None
    try:
        # A copy in which every cell has an id; papermill reads what it executes from a file.
        nbformat.write(read_notebook(lab.path), output)  # type: ignore[no-untyped-call]
        notebook = papermill.execute_notebook(
            str(output), str(output), parameters, prepare_only=True,
            engine_name=ENGINE, kernel_name="python3", language="python", progress_bar=False,
        )  # fmt: skip
        papermill_engines.execute_notebook_with_engine(
            ENGINE, notebook, "python3", output_path=str(output), progress_bar=False,
            limit_of=limit_of, on_begin=begins, on_cell=told, proving=proves,
            trials=trials_of(notebook, lab.path.parent, wrong_answers) if proving else [],
            folder=desk or lab.path.parent,
        )  # fmt: skip
        write_ipynb(notebook, str(output))
    except (
        Exception
    ) as error:  # no kernel, an output that cannot be stored, …: it is this lab's failure alone
        failure = Failure("", "", f"{type(error).__name__}: {error}", "".join(format_exception(error)))
    run = read_run(lab, output, failure)
    run.seconds = time.monotonic() - started - waited_s
    return run


def read_run(lab: Lab, output: Path, failure: Failure | None = None) -> LabRun:
    """What an executed notebook tells of its run.

    Args:
        failure: what ended the run, where no cell did.
    """
    try:
        notebook = read_notebook(output)
    except LabError:
        notebook = read_notebook(lab.path)
        run = LabRun(lab, "failed")
    else:
        run = LabRun(lab, "passed", notebook=output)
    run.cells = sum(
        1 for c in notebook.cells if c.get("execution_count") and "injected-parameters" not in tags(c)
    )
    run.exercises = list(dict.fromkeys(filter(None, map(exercise_of, notebook.cells))))
    seen = _results(notebook)
    for cell in notebook.cells:
        check_id = check_id_of(cell.source) if "check" in tags(cell) else None
        if check_id is None:
            continue
        run.checks.append(_check_record(check_id, seen.get(cell.id)))
        proof = cell.metadata.get("labkit", {}).get("proof")
        if proof is not None:
            run.proofs.append(ProofRecord(check_id, bool(proof["fails"]), str(proof["said"])))
        run.trials += _trials(check_id, cell)
    run.failure = _failure(notebook) or failure
    if run.failure:
        run.state = "failed"
        run.reason = next(iter(run.failure.error.splitlines()), "It failed.")
    elif not all(proof.fails for proof in run.proofs):
        run.state = "failed"
        run.reason = "A check passes before its step: " + ", ".join(p.id for p in run.proofs if not p.fails)
    elif not all(trial.ok for trial in run.trials):
        run.state = "failed"
        odd = [f"{trial.id} ({trial.what}): {trial.said}" for trial in run.trials if not trial.ok]
        run.reason = f"An exercise is not judged as it should be: {'; '.join(odd)}"
    elif any(record.state != "passed" for record in run.checks):
        run.state = "failed"
        run.reason = "A check showed no result: " + ", ".join(r.id for r in run.checks if r.state != "passed")
    return run


def _trials(exercise_id: str, cell: NotebookNode) -> list[TrialRecord]:
    """What the runner noted at an exercise's check."""
    noted = cell.metadata.get("labkit", {})
    tried = [(f"{_WRONG}{one['name']}", one) for one in noted.get("wrong", [])]
    tried += [("solution applied twice", noted["twice"])] if "twice" in noted else []
    return [TrialRecord(exercise_id, what, bool(one["ok"]), str(one["said"])) for what, one in tried]


def _results(notebook: NotebookNode) -> dict[str, dict[str, Any]]:
    """Cell id → the last check result among its outputs."""
    found: dict[str, dict[str, Any]] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                found[cell.id] = output["data"][MIME]
    return found


def _check_record(check_id: str, result: dict[str, Any] | None) -> CheckRecord:
    if result is None or result["id"] != check_id:
        return CheckRecord(check_id, _title(check_id), "not reached", 0.0)
    hints = tuple(f"{f['text']}: {f['hint']}" for f in result["findings"] if not f["ok"])
    state = "passed" if result["passed"] else "failed"
    return CheckRecord(check_id, result["title"], state, result["seconds"], hints)


def _title(check_id: str) -> str:
    try:
        return find(check_id).title
    except ConfigError:
        return check_id


def _failure(notebook: NotebookNode) -> Failure | None:
    """The cell that stopped the run, or None. An error of a cell tagged `raises-exception` stops nothing."""
    for cell in notebook.cells:
        if cell.metadata.get("papermill", {}).get("exception"):
            break
    else:
        return None
    noted = cell.metadata.get("labkit", {})
    failing = [o for o in cell.get("outputs", []) if o.output_type == "error"]
    error = f"{failing[-1].ename}: {failing[-1].evalue}" if failing else "The cell failed without an error."
    if "ended_after_s" in noted:
        error = f"The cell was still running after {noted['ended_after_s']:.0f} s, its limit."
    elif "exit_code" in noted:
        error = f"The cell's command failed with exit code {noted['exit_code']}: {noted['command']}"
    elif noted.get("died"):
        error = "The kernel died."
    text = "\n".join(failing[-1].traceback) if failing else ""
    return Failure(cell.id, cell.source, _ANSI.sub("", error).strip(), _ANSI.sub("", text).strip())
