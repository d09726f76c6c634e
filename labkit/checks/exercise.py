"""Exercises in a notebook: a check that waits for the learner's turn, help in levels, the solution."""

from __future__ import annotations

import html
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.checks.core import BOX, CheckResult
from labkit.course import place
from labkit.course.exercises import Exercise
from labkit.course.helping import LEVELS, Notes, help_text, solved_cells
from labkit.errors import CheckFailed, ConfigError, LabError


class YourTurn(CheckFailed):
    """The learner has not begun an exercise. In a notebook it is one friendly line."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        what = f"the cell that writes {exercise.file}" if exercise.file else "the cell above"
        super().__init__(
            f"Your turn: {exercise.title}.",
            f'Fill in {what}, run it, then run this cell again. Stuck? hint("{exercise.id}")',
        )

    def _render_traceback_(self) -> list[str]:
        return [f"✎ {self.message} {self.hint}"]


@dataclass(frozen=True)
class Note:
    """Help as a notebook shows it: words between backticks are code, and so is all after the first line."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        first, _, rest = self.text.partition("\n")
        words = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(first))
        code = f'<pre style="margin:.4em 0 0;background:none">{html.escape(rest)}</pre>' if rest else ""
        style = f"border-left:4px solid #ddaa33;background:rgba(221,170,51,.1);{BOX}"
        return f'<div class="labkit-hint" style="{style}">{words}{code}</div>'


def tell(text: str) -> None:
    """Show help: a box in a notebook, elsewhere a line."""
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display(Note(text))  # type: ignore[no-untyped-call]
            return
    print(text)


class Desk:
    """What the exercises of one kernel share: the last results, and the level of help of each.

    Args:
        show: takes text and code.
        tell: takes help; by default as `show`.
    """

    def __init__(
        self,
        notes: Notes | None = None,
        show: Callable[[str], None] = print,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.notes, self.show, self.tell = notes or Notes(), show, tell or show
        self._last: dict[str, CheckResult] = {}
        self._asked: dict[str, int] = {}
        self._confirmed: set[str] = set()

    @property
    def watched(self) -> bool:
        """Whether a learner works here; a headless run of labs leaves no trace in anybody's progress."""
        return not os.environ.get("LABKIT_HEADLESS")

    def turn_of(self, exercise: Exercise | None, args: tuple[Any, ...]) -> None:
        """Stop at an exercise that the learner has not begun.

        Raises:
            YourTurn: naming what to fill in.
        """
        if exercise and any(exercise.is_open(Path.cwd(), arg) for arg in (None, *args)):
            raise YourTurn(exercise)

    def judged(self, exercise: Exercise | None, result: CheckResult) -> None:
        """Keep what a check found; from its second failure in a row on, show the next level of help."""
        again = result.id in self._last and not self._last[result.id].passed
        self.remember(result)
        if exercise and not result.passed:
            if again:
                self.help(exercise)
            else:
                self.tell(f'Stuck? Run this cell again, or hint("{exercise.id}").')

    def remember(self, result: CheckResult) -> None:
        """Keep what a check found, in progress too."""
        self._last[result.id] = result
        if self.watched:
            self.notes.note("check", result.id, ok=result.passed)

    def passed(self) -> set[str]:
        """Ids of the checks that passed in this kernel at their last look."""
        return {name for name, result in self._last.items() if result.passed}

    def caught_up(self, exercises: Sequence[str]) -> None:
        """Note the exercises that are carried out for the learner."""
        if self.watched:
            for name in exercises:
                self.notes.note("catch-up", name)

    def help(self, exercise: Exercise) -> None:
        """Show the next level of help."""
        known = self._asked.get(exercise.id)
        level = min(
            LEVELS, 1 + (self.notes.hint_level(exercise.id) if known is None and self.watched else known or 0)
        )
        result = self._last.get(exercise.id)
        if level == 2 and result is None:
            self.tell("Run the check first: the next hint is chosen by what it sees.")
            return
        self._asked[exercise.id] = level
        if self.watched:
            self.notes.note("hint", exercise.id, level=level)
        self.tell(f"Hint {level} of {LEVELS}. {help_text(exercise, level, result.missing if result else [])}")

    def reveal(self, exercise: Exercise, confirmed: bool = False) -> None:
        """Show the solution when it is confirmed, or asked for the second time.

        Raises:
            LabError: the course's sources are not at hand.
        """
        if not confirmed and exercise.id not in self._confirmed:
            self._confirmed.add(exercise.id)
            self.show(
                f'This shows how "{exercise.title}" is solved, and your progress will say so. '
                f'If you are sure, run solution("{exercise.id}") once more.'
            )
            return
        for source in solved_cells(sources(), exercise.id).values():
            self.show(source)
        if self.watched:
            self.notes.note("solution", exercise.id)


def known(exercise_id: str) -> Exercise:
    """The exercise of that id.

    Raises:
        ConfigError: there is none.
    """
    found = place.exercise(exercise_id)
    if found is None:
        raise ConfigError(
            f"There is no exercise {exercise_id!r}.", "An exercise has the id of its check: 00-service."
        )
    return found


def sources() -> Path:
    """The folder of the labs' sources.

    Raises:
        LabError: there is none.
    """
    folder = place.sources()
    if folder is None:
        raise LabError("The course's solutions are not at hand.", "Open the notebook in its course folder.")
    return folder
