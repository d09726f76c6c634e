"""Which checks there are: one module per lab, `lab01` holding those whose ids begin with "01-"."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.checks.catching_up import carry_out, solved_up_to
from labkit.checks.core import CheckResult, Finding, StepNotDone, is_proving, repeat
from labkit.checks.exercise import Desk, known, sources, tell
from labkit.course import place
from labkit.course.numbers import CHECK, LAB, lab_of
from labkit.errors import ConfigError

Findings = Callable[..., Iterable[Finding]]

_SPECS: dict[str, CheckSpec] = {}
_FAILED: list[CheckResult] = []
"""The last check that failed, while it has not passed since."""
_DESK = Desk(tell=tell)


@dataclass(frozen=True)
class CheckSpec:
    """A check and its metadata.

    Attributes:
        id: lab number, then words: "01-third-worker-ready".
        title: what is true when it passes.
        deadline_s: how long it goes on looking.
        every_s: pause between two looks.
        findings: the function that looks once, given the cluster (and what else the lab passes).
    """

    id: str
    title: str
    deadline_s: float
    every_s: float
    findings: Findings

    @property
    def needs_only_cluster(self) -> bool:
        """Whether it looks at the cluster alone, and can be asked outside of its notebook."""
        needed = [p for p in inspect.signature(self.findings).parameters.values() if p.default is p.empty]
        return [p.name for p in needed] == ["cluster"]


def define(
    check_id: str, title: str, *, deadline_s: float = 10.0, every_s: float = 0.5
) -> Callable[[Findings], Findings]:
    """Decorator: the function yields one Finding per thing it looks at.

    Raises:
        ValueError: the id is malformed or taken, or the times make no sense (an error of the lab's author).
    """
    if not re.fullmatch(CHECK, check_id):
        raise ValueError(f"check id {check_id!r}: the number of the lab, then words joined by '-'")
    if check_id in _SPECS:
        raise ValueError(f"check id {check_id!r} is defined twice")
    if not 0 <= deadline_s <= 300 or not 0.05 <= every_s <= 30:
        raise ValueError(f"check {check_id!r}: deadline_s within 0–300 and every_s within 0.05–30")

    def register(function: Findings) -> Findings:
        _SPECS[check_id] = CheckSpec(check_id, title, deadline_s, every_s, function)
        return function

    return register


def checks_of(lab: str) -> list[CheckSpec]:
    """The checks of a lab given by its number, in the order in which they are written."""
    if not re.fullmatch(LAB, lab):
        raise ConfigError(f"{lab!r} is not a lab's number.", "As in the notebook's name: 01 or 02b.")
    name = f"labkit.checks.lab{lab}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    return [spec for check_id, spec in _SPECS.items() if check_id.startswith(f"{lab}-")]


def find(check_id: str) -> CheckSpec:
    """The check of that id.

    Raises:
        ConfigError: there is none; the message lists the lab's checks.
    """
    known = checks_of(lab_of(check_id))
    for spec in known:
        if spec.id == check_id:
            return spec
    listed = ", ".join(spec.id for spec in known) or "none"
    raise ConfigError(f"There is no check {check_id!r}.", f"Checks of that lab: {listed}.")


def check(
    check_id: str, *args: Any, stop: bool = True, deadline_s: float | None = None, **kwargs: Any
) -> CheckResult:
    """Run a check and show what it found.

    Args:
        check_id: as in "01-third-worker-ready".
        args, kwargs: what the check looks at; the cluster first.
        stop: raise when it fails. False only shows the result (to see a check fail on purpose).
        deadline_s: another deadline than the check's own.

    Raises:
        YourTurn: it judges an exercise that the learner has not begun.
        CheckFailed: with what was seen, when something is still wrong at the deadline.
        ConfigError: there is no such check.
    """
    spec = find(check_id)
    exercise = place.exercise(check_id)
    if stop and not is_proving():
        _DESK.turn_of(exercise, args)
    result = _look(spec, deadline_s, *args, **kwargs)
    if not is_proving():
        _remember(result)
        if result.passed:
            _DESK.judged(exercise, result)
    if result.passed or not (stop or is_proving()):
        return result
    if not is_proving():
        _show(result)
        _DESK.judged(exercise, result)
    raise StepNotDone(result)


def run_check(spec: CheckSpec, *args: Any, deadline_s: float | None = None) -> CheckResult:
    """Run a check outside of a notebook: it shows nothing and raises nothing; progress knows of it."""
    result = _look(spec, deadline_s, *args)
    _remember(result)
    _DESK.remember(result)
    return result


def _look(spec: CheckSpec, deadline_s: float | None, *args: Any, **kwargs: Any) -> CheckResult:
    return repeat(
        spec.id,
        spec.title,
        lambda: spec.findings(*args, **kwargs),
        deadline_s=spec.deadline_s if deadline_s is None else deadline_s,
        every_s=spec.every_s,
    )


def hint(exercise_id: str = "") -> None:
    """Help: with an exercise the next of three levels, else what the last check that failed saw instead.

    Args:
        exercise_id: by default the exercise whose check failed last.

    Raises:
        ConfigError: there is no such exercise.
    """
    failed = _FAILED[0].id if _FAILED else ""
    exercise = known(exercise_id) if exercise_id else place.exercise(failed) if failed else None
    if exercise:
        _DESK.help(exercise)
        return
    if not _FAILED:
        print("No check has failed. Run one: its hint appears here when something is still missing.")
    for result in _FAILED:
        print(f"{result.title}:")
        for each in result.hints:
            print(f"  {each}")


def solution(exercise_id: str, *, confirmed: bool = False) -> None:
    """Show how an exercise is solved, when asked for it twice; the learner's progress says so.

    Args:
        confirmed: the first time is enough.

    Raises:
        ConfigError: there is no such exercise.
        LabError: the course's sources are not at hand.
    """
    _DESK.reveal(known(exercise_id), confirmed)


def catch_up(check_id: str) -> None:
    """Carry out the solved cells up to a check, visibly, in this kernel; the lab goes on from there.

    It begins after the last check of the lab that has passed in this kernel. A file of yours that a solution
    replaces is kept beside it, and your progress says that you caught up.

    Raises:
        ConfigError: this is no notebook.
        LabError: no lab has that check, or the course's sources are not at hand.
        CatchUpStopped: a cell failed.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise ConfigError("catch_up works in a notebook.", "In a terminal: labkit solution 00-service")
    cells = solved_up_to(sources(), check_id, _DESK.passed(), shell.user_ns.keys())
    _DESK.caught_up(sorted({cell.exercise for cell in cells if cell.exercise}))

    def run(source: str) -> BaseException | None:
        outcome = shell.run_cell(source, store_history=False)
        error: BaseException | None = outcome.error_before_exec or outcome.error_in_exec
        return error

    carry_out(cells, run, print, Path.cwd())


def _remember(result: CheckResult) -> None:
    if not result.passed:
        _FAILED[:] = [result]
    elif _FAILED and _FAILED[0].id == result.id:
        _FAILED.clear()


def _show(result: CheckResult) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        print(result)
    else:
        display(result)  # type: ignore[no-untyped-call]
